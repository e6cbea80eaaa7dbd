"""The command that shows what was used: by whom, of what, when."""

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import click
from attrs import evolve, field, frozen

from gateway.cli.output import bar, csv_of, gauge, json_option, show_json, show_table, sparkline
from gateway.cli.policies import number
from gateway.cli.standings import standings_of, usage_as_json
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Past, Prefix, in_zone
from gateway.model import Key, Tenant
from gateway.rules.usage import DURATIONS, OUTCOMES, REFUSALS, TOKENS
from gateway.rules.windows import zone_of
from gateway.storage.refusals import NoSuchKey
from gateway.storage.usage import DIMENSIONS, Selection, Used

_TIMES: Final = ("day", "hour")
_WITH_BUDGETS: Final = (("tenant",), ("key",))
_SPARKS: Final = 24
_NOT_KNOWN: Final = "–"
# Which of BUDGETS, in a word.
_WINDOWS: Final = {"daily_tokens": "day", "monthly_tokens": "month", "total_tokens": "total"}


@frozen
class Names:
    """Who is behind the ids; what was deleted is not among them. Of an account, its latest key."""

    tenants: dict[str, Tenant]
    keys: dict[str, Key]


@frozen
class Group:
    """A line: what it is of, what was used, how that went over time, and where its budgets stand."""

    of: dict[str, str]
    counts: Counter[str]
    series: list[int] = field(factory=list)
    budgets: dict[str, Any] = field(factory=dict)


@click.command()
@click.option(
    "--by",
    type=click.Choice([*DIMENSIONS, *_TIMES]),
    multiple=True,
    default=("tenant",),
    show_default="tenant",
    help="What each line is of; repeat it for more.",
)
@click.option("--since", type=Past(), default="30d", show_default=True, help="As 12h, 30d, or 2026-11-01.")
@click.option("--until", type=Past(), help="The same; without: until now.")
@click.option("--tenant", help="Only of the tenant of this name, or id.")
@click.option("--prefix", type=Prefix(), help="Only of the key with this public prefix, and its account.")
@click.option("--model", help="Only of this model, by its canonical name such as llama3:latest.")
@click.option("--backend", help="Only of the backend of this name.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV, for spreadsheets.")
@json_option
def usage(*, by: tuple[str, ...], as_csv: bool, as_json: bool, **asked: Any) -> None:
    """Show what was used: requests, refusals, tokens, and the time that backends worked.

    Tokens are those of the ledger, as they are charged. Days and hours are those of the tenant's time zone;
    a date after --since or --until begins in the time zone of the tenant after --tenant, and without one in
    UTC. An hour that they cut counts whole. Budgets are shown by tenant or by key, as full as they are now.
    Costs what hours there are: nothing reads the audit log.

    \b
    Examples:
      neuronetz-gateway usage
      neuronetz-gateway usage --tenant acme --by day --by model --since 7d
      neuronetz-gateway usage --by key --since 2026-11-01 --until 2026-11-23 --csv
    """
    if as_csv and as_json:
        raise click.UsageError("Either --csv or --json.")
    asked["until"] = time.time() if asked["until"] is None else asked["until"]
    by = tuple(dict.fromkeys(by))
    groups, names = with_stores(lambda stores: _read(stores, by, asked))
    if as_json:
        show_json([_as_json(by, group, names) for group in groups])
    elif as_csv:
        _show_csv(by, groups, names)
    elif not groups:
        click.echo("Nothing was used.")
    else:
        _show(by, groups, names)


async def _read(stores: Stores, by: Sequence[str], asked: dict[str, Any]) -> tuple[list[Group], Names]:
    names = await _names(stores)
    tenant_id = None if asked["tenant"] is None else await stores.tenant_id_of(asked["tenant"])
    tenant = names.tenants.get(tenant_id or "")
    zone = "UTC" if tenant is None else tenant.time_zone
    since, until = in_zone(asked["since"], zone), in_zone(asked["until"], zone)
    if since >= until:
        raise click.UsageError("--since is not before --until.")
    selection = Selection(
        since,
        until,
        tenant_id=tenant_id,
        key_id=None if asked["prefix"] is None else await _account_of(stores, asked["prefix"]),
        model=asked["model"],
        backend=asked["backend"],
    )
    is_timed = any(name in _TIMES for name in by)
    dimensions = [name for name in by if name not in _TIMES]
    used = await stores.usage.read(selection, dimensions, slots=None if is_timed else _SPARKS)
    groups = _grouped(used, by)
    if by in _WITH_BUDGETS:
        groups = [evolve(group, budgets=await _budgets(stores, by[0], group, names)) for group in groups]
    return groups, names


async def _names(stores: Stores) -> Names:
    tenants = {tenant.id: tenant for tenant in await stores.tenants.all()}
    return Names(tenants, {key.account: key for key in await stores.keys.all()})


async def _account_of(stores: Stores, prefix: str) -> str:
    key = await stores.keys.key_by_prefix(prefix)
    if key is None:
        raise NoSuchKey(prefix)
    return key.account


async def _budgets(stores: Stores, by: str, group: Group, names: Names) -> dict[str, Any]:
    """Where the budgets stand that have a limit; nothing is asked of the database where none has."""
    holder: Tenant | Key | None
    holder = (
        names.tenants.get(group.of["tenant_id"]) if by == "tenant" else names.keys.get(group.of["key_id"])
    )
    policies = [] if holder is None else [holder.policy]
    if isinstance(holder, Key):
        policies.append(holder.tenant.policy)
    if holder is None or all(getattr(one, name) is None for one in policies for name in _WINDOWS):
        return {}
    return usage_as_json(await standings_of(stores, holder, time.time()))


def _grouped(used: Sequence[Used], by: Sequence[str]) -> list[Group]:
    """One group for all that is of the same; by time where that is asked for, else the most first."""
    groups: dict[tuple[str, ...], Group] = {}
    for one in used:
        of = {**one.of, **_time_of(one, by)}
        group = groups.setdefault(tuple(of.values()), Group(of, Counter(), [0] * (_SPARKS + 1)))
        group.counts.update(one.counts)
        if not any(name in _TIMES for name in by):
            group.series[max(0, min(one.slot, _SPARKS))] += one.counts["tokens"] or one.counts["requests"]
    times = [name for name in _TIMES if name in by]

    def order(group: Group) -> tuple[Any, ...]:
        return (*(group.of[name] for name in times), -group.counts["tokens"], -group.counts["requests"])

    return sorted(groups.values(), key=order)


def _time_of(used: Used, by: Sequence[str]) -> dict[str, str]:
    if not any(name in _TIMES for name in by):
        return {}
    try:
        begins = datetime.fromtimestamp(used.slot, zone_of(used.zone))
    except ValueError:  # it was known where it was set
        begins = datetime.fromtimestamp(used.slot, UTC)
    shown = {"day": f"{begins:%Y-%m-%d}", "hour": begins.isoformat(timespec="minutes")}
    return {name: shown[name] for name in _TIMES if name in by}


# ── what of a group is told ──────────────────────────────────────────────────────────────


def _named(by: Sequence[str], group: Group, names: Names) -> dict[str, str | None]:
    """By name what it is of; None where that is not known, or has no name any more."""
    told: dict[str, str | None] = {}
    for name in by:
        match name:
            case "tenant":
                told |= _tenant_told(group, names)
            case "key":
                key = names.keys.get(group.of["key_id"])
                told |= _tenant_told(group, names)
                told |= {"prefix": key.prefix if key else None, "key": key.name if key else None}
                told |= {"key_id": group.of["key_id"] or None}
            case _:
                told[name] = group.of[name] or None
    return told


def _tenant_told(group: Group, names: Names) -> dict[str, str | None]:
    tenant = names.tenants.get(group.of["tenant_id"])
    return {"tenant": tenant.name if tenant else None, "tenant_id": group.of["tenant_id"] or None}


def _counted(counts: Counter[str]) -> dict[str, int | float]:
    """Every number by its name; durations in seconds."""
    gpu = {name.replace("_us", "_s"): round(counts[name] / 1e6, 3) for name in DURATIONS}
    return {
        "requests": counts["requests"],
        **{name: counts[name] for name in OUTCOMES},
        "refused": sum(counts[name] for name in REFUSALS),
        **{name: counts[name] for name in TOKENS},
        **{f"gpu_{name}": value for name, value in gpu.items()},
        "gpu_s": round(sum(counts[name] for name in DURATIONS) / 1e6, 3),
        "model_loads": counts["model_loads"],
    }


def _as_json(by: Sequence[str], group: Group, names: Names) -> dict[str, Any]:
    budgets = {"budgets": group.budgets} if tuple(by) in _WITH_BUDGETS else {}
    return {**_named(by, group, names), **_counted(group.counts), **budgets}


def _show_csv(by: Sequence[str], groups: Sequence[Group], names: Names) -> None:
    rows = [{**_named(by, group, names), **_counted(group.counts)} for group in groups]
    head = list(rows[0]) if rows else [*by, *_counted(Counter())]
    click.echo(csv_of([head, *(list(row.values()) for row in rows)]), nl=False)


def _show(by: Sequence[str], groups: Sequence[Group], names: Names) -> None:
    has_sparks = not any(name in _TIMES for name in by)
    has_budgets = any(group.budgets for group in groups)
    columns = [name.capitalize() for name in by]
    columns += ["Requests", "Refused", "Failed", "Prompt", "Output", "Tokens", "", "GPU s", "Loads"]
    columns += ["Over time"] * has_sparks + ["Budgets used"] * has_budgets
    most = max(_measure(group) for group in groups)
    rows = []
    for group in groups:
        row = [*_labels(by, group, names), *_numbers(group.counts, bar(_measure(group), most))]
        row += [sparkline(group.series)] * has_sparks + [_budget_told(group)] * has_budgets
        rows.append(row)
    total: Counter[str] = Counter()
    for group in groups:
        total.update(group.counts)
    rows.append(["Total", *[""] * (len(by) - 1), *_numbers(total, "")])
    show_table(columns, [[*row, *[""] * (len(columns) - len(row))] for row in rows])


def _measure(group: Group) -> int:
    return group.counts["tokens"] or group.counts["requests"]


def _labels(by: Sequence[str], group: Group, names: Names) -> list[str]:
    told = _named(by, group, names)
    labels = []
    for name in by:
        match name:
            case "tenant":
                labels.append(told["tenant"] or told["tenant_id"] or _NOT_KNOWN)
            case "key":
                whole = f"{told['tenant']}/{told['key']} ({told['prefix']})"
                labels.append(whole if told["prefix"] else told["key_id"] or _NOT_KNOWN)
            case _:
                labels.append(told[name] or _NOT_KNOWN)
    return labels


def _numbers(counts: Counter[str], in_proportion: str) -> list[str]:
    told = _counted(counts)
    return [
        number(counts["requests"]),
        number(int(told["refused"])),
        number(counts["backend_failed"] + counts["cut"]),
        number(counts["prompt_tokens"]),
        number(counts["completion_tokens"]),
        number(counts["tokens"]),
        in_proportion,
        f"{told['gpu_s']:,.1f}",
        number(counts["model_loads"]),
    ]


def _budget_told(group: Group) -> str:
    """Each budget that has a limit, as full as it is: `day ███░░░░░ 42%`. Of key and tenant the fuller."""
    told = []
    for window, standings in group.budgets.items():
        shares = [
            standing["used"] / standing["limit"] if standing["limit"] else 1.0
            for standing in (standings.get("key"), standings.get("tenant"))
            if standing is not None and standing["limit"] is not None
        ]
        if shares:
            told.append(f"{_WINDOWS[window]} {gauge(max(shares))} {max(shares):.0%}")
    return "  ".join(told)
