"""Typed reading of a JSON object's fields, with errors that name the path.

Exact names only: what a reader does not ask for is never forwarded. `null` counts as absent, as in
Ollama and in OpenAI's clients. All raise InvalidRequest, whose `param` is the path of the field.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Any

from gateway.errors import InvalidRequest, UnsupportedField
from gateway.model import JsonObject

# Integers beyond 2^53 are rounded by parsers that read numbers as doubles; no field of ours needs more.
MAX_INTEGER = 2**53


class Fields:
    """One JSON object, read by name. `path` is where it stands in the body, "" for the body itself."""

    __slots__ = ("_object", "_path")

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise InvalidRequest(f"'{path or 'body'}' must be an object.", param=path or None)
        self._object: JsonObject = value
        self._path = path

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def refuse(self, name: str, expected: str) -> InvalidRequest:
        path = self.path(name)
        return InvalidRequest(f"'{path}' must be {expected}.", param=path)

    def names(self) -> Iterable[str]:
        return self._object.keys()

    def has_any(self, names: AbstractSet[str]) -> bool:
        """Whether one of these is there, null or not: one look for all that is rarely given."""
        return not self._object.keys().isdisjoint(names)

    def has_others(self, names: AbstractSet[str]) -> bool:
        """Whether a field is there, null or not, that is none of these."""
        return not self._object.keys() <= names

    def has(self, name: str) -> bool:
        """True where the field is there and not null."""
        return self._object.get(name) is not None

    def raw(self, name: str) -> Any:
        return self._object.get(name)

    def string(self, name: str) -> str | None:
        value = self._object.get(name)
        if value is None or isinstance(value, str):
            return value
        raise self.refuse(name, "a string")

    def text(self, name: str) -> str:
        """A string, or "" where there is none."""
        return self.string(name) or ""

    def required_string(self, name: str) -> str:
        value = self.string(name)
        if not value:
            raise self.refuse(name, "given: a string that is not empty")
        return value

    def boolean(self, name: str) -> bool | None:
        value = self._object.get(name)
        if value is None or isinstance(value, bool):
            return value
        raise self.refuse(name, "true or false")

    def integer(self, name: str, lowest: int = -MAX_INTEGER, highest: int = MAX_INTEGER) -> int | None:
        value = self._object.get(name)
        if value is None:
            return None
        # bool is a subclass of int: `true` is no number.
        if isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        raise self.refuse(name, _range("an integer", lowest, highest))

    def number(self, name: str, lowest: float = -MAX_INTEGER, highest: float = MAX_INTEGER) -> float | None:
        value = self._object.get(name)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest:
            return value
        raise self.refuse(name, _range("a number", lowest, highest))

    def choice(self, name: str, *allowed: str) -> str | None:
        value = self.string(name)
        if value is None or value in allowed:
            return value
        raise self.refuse(name, "one of " + ", ".join(allowed))

    def required_choice(self, name: str, *allowed: str) -> str:
        value = self.choice(name, *allowed)
        if value is None:
            raise self.refuse(name, "given: one of " + ", ".join(allowed))
        return value

    def array(self, name: str, at_most: int | None = None) -> list[Any]:
        """A list, or an empty one where there is none."""
        value = self._object.get(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.refuse(name, "an array")
        if at_most is not None and len(value) > at_most:
            raise self.refuse(name, f"an array of at most {at_most} items")
        return value

    def strings(self, name: str, at_most: int | None = None) -> tuple[str, ...]:
        values = self.array(name, at_most)
        if not all(isinstance(value, str) for value in values):
            raise self.refuse(name, "an array of strings")
        return tuple(values)

    def object(self, name: str) -> "Fields | None":
        value = self._object.get(name)
        return None if value is None else Fields(value, self.path(name))

    def required_object(self, name: str) -> "Fields":
        child = self.object(name)
        if child is None:
            raise self.refuse(name, "given: an object")
        return child

    def objects(self, name: str, at_most: int | None = None) -> list["Fields"]:
        path = self.path(name)
        return [Fields(value, f"{path}[{index}]") for index, value in enumerate(self.array(name, at_most))]

    def refuse_look_alikes(self, known: frozenset[str]) -> None:
        """Refuse names that a lenient parser would fold onto a known one: `MODEL`, `modeſ`, `Kelvin`.

        Go's encoding/json matches names without regard to case and keeps the last; what we decided
        on must be what the backend reads, and what the caller meant.
        """
        if not self.has_others(known):
            return
        for name in self._object:
            if name not in known and name.casefold() in known:
                path, meant = self.path(name), name.casefold()
                raise InvalidRequest(
                    f"'{path}' is not a field, and too close to '{meant}' to be ignored.", param=path
                )

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Refuse every field that is not one of these, look-alikes with a better hint."""
        if not self.has_others(known):
            return
        self.refuse_look_alikes(known)
        for name in self._object:
            if name not in known and self.has(name):
                path = self.path(name)
                raise UnsupportedField(f"'{path}' is not taken here; leave it out.", param=path)


def _range(what: str, lowest: float, highest: float) -> str:
    if lowest > -MAX_INTEGER and highest < MAX_INTEGER:
        return f"{what} from {lowest} to {highest}"
    if lowest > -MAX_INTEGER:
        return f"{what} of at least {lowest}"
    return what
