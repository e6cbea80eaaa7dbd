"""The line OLLAMA_BACKENDS, with one more backend or one less. What else is in it stays as it was written."""

import difflib
from collections.abc import Mapping
from typing import Final, Self

import click
from attrs import evolve, frozen

from gateway import config
from gateway.config import BackendConfig

NAME: Final = "OLLAMA_BACKENDS"
_DEFAULT: Final = next(setting.default for setting in config.SETTINGS if setting.name == NAME)


@frozen
class BackendLine:
    """Entries as they are written, and what they mean; `has_default`: the first is there by default."""

    entries: tuple[str, ...]
    backends: tuple[BackendConfig, ...]
    has_default: bool = False

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Self:
        """Raises ConfigError with all mistakes in these settings."""
        text = values.get(NAME, "").strip()
        entries = tuple(entry.strip() for entry in (text or _DEFAULT).split(",") if entry.strip())
        return cls(entries, config.parse(values).backends, has_default=not text)

    def __str__(self) -> str:
        return ",".join(self.entries)

    def named(self, name_or_url: str) -> BackendConfig:
        """The backend of this name or URL. Raises ClickException, which knows the nearest one."""
        url = name_or_url.rstrip("/")
        for backend in self.backends:
            if name_or_url == backend.name or url == backend.url:
                return backend
        names = [backend.name for backend in self.backends]
        near = difflib.get_close_matches(name_or_url, [*names, *(one.url for one in self.backends)], n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"{NAME} has {', '.join(names)}."
        raise click.ClickException(f"There is no backend '{name_or_url}'; {hint}")


def with_entry(values: Mapping[str, str], entry: str) -> BackendLine:
    """The line with this entry at its end. Raises ConfigError, ClickException."""
    before = BackendLine.of(values)
    after = BackendLine.of({**values, NAME: ",".join((*before.entries, entry))})
    new = after.backends[-1]
    same = next((one.name for one in before.backends if one.url == new.url), None)
    if same is not None:
        raise click.ClickException(f"There is a backend at {new.url} already: '{same}'.")
    return evolve(after, has_default=before.has_default)


def without(values: Mapping[str, str], name_or_url: str) -> tuple[BackendLine, BackendConfig]:
    """The line without this backend, and that. Raises ConfigError, ClickException."""
    before = BackendLine.of(values)
    gone = before.named(name_or_url)
    left = [entry for entry, one in zip(before.entries, before.backends, strict=True) if one != gone]
    if not left:
        raise click.ClickException(
            f"'{gone.name}' is the only backend, and without any {NAME} is {_DEFAULT}: add another first."
        )
    return BackendLine.of({**values, NAME: ",".join(left)}), gone


def entry_of(url: str, options: Mapping[str, str | int | None], name: str | None) -> str:
    """One entry, with the options that were given."""
    given = [f"{option}={value}" for option, value in options.items() if value is not None]
    return ";".join([url if name is None else f"{name}={url}", *given])
