"""What policies are to operators: options that change them, and tables that show what applies."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import click
from attrs import asdict
from click.core import ParameterSource

from gateway.cli.output import show_table
from gateway.cli.words import Bound
from gateway.model import Key, Tenant
from gateway.rules.limits import own_or_inherited

# Fields of Policy, in the words that follow "at most so many".
LIMITS: Final = {
    "rpm": "requests per minute",
    "tpm": "tokens per minute",
    "concurrent": "requests at the same time",
}
BUDGETS: Final = {
    "daily_tokens": "tokens per day",
    "monthly_tokens": "tokens per month",
    "total_tokens": "tokens in total",
}
BOUNDS: Final = LIMITS | BUDGETS
# Fields of ModelPolicy, likewise.
MODEL_BOUNDS: Final = {
    "max_num_ctx": "tokens of context in a request",
    "max_output_tokens": "tokens of output in a request",
}
_CHANGEABLE: Final = {
    **BOUNDS,
    **MODEL_BOUNDS,
    "models": "models",
    "allow_cloud": "models that leave the box",
    "time_zone": "time zone",
    "weight": "weight in queues",
}

# What was given on the command line, by field; None removes.
Changes = dict[str, int | None]
Holder = Tenant | Key
"""What a policy is on."""

_Command = Callable[..., None]
_SOURCES: Final = {"own": "its own", "inherited": "inherited", "tenant": "the tenant's"}


# ── options ──────────────────────────────────────────────────────────────────────────────


def option_of(field: str) -> str:
    """`--daily-tokens` for `daily_tokens`."""
    return f"--{field.replace('_', '-')}"


def policy_options(bounds: Mapping[str, str]) -> Callable[[_Command], _Command]:
    """Give a command an option for each bound. It is called with `changes`: those that were given."""

    def decorated(command: _Command) -> _Command:
        @functools.wraps(command)
        def with_changes(**values: Any) -> None:
            context = click.get_current_context()
            of_policy = {field: values.pop(field) for field in bounds}
            changes = {field: value for field, value in of_policy.items() if is_given(context, field)}
            command(changes=changes, **values)

        options = with_changes
        for field, words in reversed(list(bounds.items())):
            described = click.option(
                option_of(field), type=Bound(), metavar="N|none", help=f"At most so many {words}."
            )
            options = described(options)
        return options

    return decorated


def is_given(context: click.Context, field: str) -> bool:
    return context.get_parameter_source(field) is ParameterSource.COMMANDLINE


def weight_option(default: int | None) -> Callable[[_Command], _Command]:
    """`--weight`, which only a tenant has."""
    return click.option(
        "--weight",
        type=click.IntRange(1, 1000),
        default=default,
        show_default=default is not None,
        help="Of a tenant: how much it is served beside others that wait for a busy backend.",
    )


# ── what applies ─────────────────────────────────────────────────────────────────────────


def told(holder: Holder) -> str:
    """`the key 'ci' (nz_abc12345) of the tenant 'acme'`: in a sentence."""
    if isinstance(holder, Tenant):
        return f"the tenant '{holder.name}'"
    return f"the key '{holder.name}' ({holder.prefix}) of the tenant '{holder.tenant.name}'"


def tenant_of(holder: Holder) -> Tenant:
    return holder if isinstance(holder, Tenant) else holder.tenant


def what_applies(holder: Holder, field: str) -> tuple[int | None, str | None]:
    """The number that bounds a holder, and whose it is: "own", "inherited", "tenant", or None for no bound.

    A key's own value and its tenant's both apply, so the smaller one is what it can get: "tenant" says that
    the key's own is above it.
    """
    own: int | None = getattr(holder.policy, field)
    if isinstance(holder, Tenant):
        return own, None if own is None else "own"
    of_tenant: int | None = getattr(holder.tenant.policy, field)
    if own is None:
        return own_or_inherited(own, of_tenant), None if of_tenant is None else "inherited"
    return (own, "own") if of_tenant is None or own <= of_tenant else (of_tenant, "tenant")


def policy_as_json(holder: Holder) -> dict[str, Any]:
    """All limits and budgets by name. `source` is whose number applies; see `what_applies`."""
    return {
        "limits": {field: _bound_as_json(holder, field) for field in LIMITS},
        "budgets": {field: _bound_as_json(holder, field) for field in BUDGETS},
    }


def _bound_as_json(holder: Holder, field: str) -> dict[str, Any]:
    effective, source = what_applies(holder, field)
    of_tenant = {} if isinstance(holder, Tenant) else {"tenant": getattr(holder.tenant.policy, field)}
    return {"own": getattr(holder.policy, field), **of_tenant, "effective": effective, "source": source}


def show_policy(holder: Holder, bounds: Mapping[str, str] = BOUNDS) -> None:
    """A table of bounds, and a sentence when anything is 0, whether it is among them or not."""
    if isinstance(holder, Tenant):
        rows = [(words, _applying(holder, field)) for field, words in bounds.items()]
        show_table(("At most", "Applies"), rows)
    else:
        show_table(
            ("At most", "Own", "Tenant's", "Applies"), [_key_row(holder, *one) for one in bounds.items()]
        )
    show_denial(holder)


def show_denial(holder: Holder) -> None:
    """Say that nothing gets through, and why, when it is so."""
    denying = [_zero_told(holder, field) for field in BOUNDS if what_applies(holder, field)[0] == 0]
    if denying:
        click.echo(
            f"\n0 denies: all requests of {told(holder)} to models are refused by {', '.join(denying)}."
        )


def _key_row(key: Key, field: str, words: str) -> tuple[str, ...]:
    own, of_tenant = getattr(key.policy, field), getattr(key.tenant.policy, field)
    return words, number(own), number(of_tenant), _applying(key, field)


def _applying(holder: Holder, field: str) -> str:
    value, source = what_applies(holder, field)
    whose = "" if isinstance(holder, Tenant) or source is None else f", {_SOURCES[source]}"
    return f"{number(value, 'no limit')}{whose}{': denies all' if value == 0 else ''}"


def _zero_told(holder: Holder, field: str) -> str:
    """`--rpm 0 (inherited)`."""
    _, source = what_applies(holder, field)
    whose = "" if source in (None, "own") else f" ({_SOURCES[source]})"
    return f"{option_of(field)} 0{whose}"


def number(value: int | None, otherwise: str = "none") -> str:
    return otherwise if value is None else f"{value:,}"


# ── what changed ─────────────────────────────────────────────────────────────────────────


def settings_of(holder: Holder) -> dict[str, Any]:
    """What commands can change: the own values of both policies, and what only a tenant has."""
    of_tenant: dict[str, Any] = {}
    if isinstance(holder, Tenant):
        of_tenant = {
            "time_zone": holder.time_zone,
            "allow_cloud": holder.allow_cloud,
            "weight": holder.weight,
        }
    return {**of_tenant, **asdict(holder.policy), **asdict(holder.models)}


Differences = dict[str, dict[str, Any]]
"""By field, `before` and `after`."""


def changed(before: Holder, after: Holder) -> Differences:
    """By field what was before and is now, of those that differ."""
    was, now = settings_of(before), settings_of(after)
    return {field: {"before": was[field], "after": now[field]} for field in now if was[field] != now[field]}


def changes_told(changes: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """`requests per minute: 60, was none`: a line each."""
    for field, values in changes.items():
        after, before = _value_told(field, values["after"]), _value_told(field, values["before"])
        yield f"{_CHANGEABLE[field]}: {after}, was {before}"


def _value_told(field: str, value: Any) -> str:
    match value:
        case str():
            return value
        case bool():
            return "allowed" if value else "refused"
        case tuple():
            return ", ".join(value)
        case None if field == "models":
            return "all"
        case _:
            return number(value)
