"""What a request costs by how much there is: keys and tenants, audit rows, processes. It should not matter.

    python -m bench.scale [--keys 1 1000 100000] [--rows 0 1000000] [--store sqlite postgres] [--seconds 3]

A gateway of each size at the same time, each with every control on; they take turns, round by round. What is
beside the one key that calls is written behind their backs: tenants with a key each, a month of audit rows.
Two processes share one Redis and one Postgres: what both can do together is counted by the CPU that a request
costs each of them while both work, since two cores can't hold two gateways and those who call them. Both have
one core, and its cache, between them: so two that share nothing else are measured beside them.

What the commands cost by the length of the audit log is in bench.usage, what admission costs by the number of
keys that are in use in bench.admission.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench import machine
from bench.measuring import ROWS, Results, body_of, measure
from bench.programs import Call, Load, start_load, told_by
from bench.systems import Backends, Caller, System, gateway, stores
from bench.usage import fill
from gateway.postgres_address import is_postgres
from tests.databases import ask
from tests.gateways import Gateway

_PLAIN: Final = next(row for row in ROWS if row.name == "plain 16")
_DAYS: Final = 30
_WARM_UP_S: Final = 1.0
_TENANTS: Final = """
    INSERT INTO tenants (id, name, folded, created_at)
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
    SELECT 'bench-t' || i, 'bench-t' || i, 'bench-t' || i, 1763996400 FROM n
"""
_KEYS: Final = """
    INSERT INTO keys (id, tenant_id, name, folded, prefix, mac, argon2, created_at, account_id)
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count})
    SELECT 'bench-k' || n.i, 'bench-t' || n.i, 'k', 'k', 'nz_' || substr({padded}, 2, 8), {mac}, one.argon2,
        1763996400, 'bench-k' || n.i
    FROM n, (SELECT argon2 FROM keys LIMIT 1) AS one
"""
_PADDED: Final = "CAST(100000000 + n.i AS text)"


def fill_keys(count: int, served: Gateway) -> None:
    """So many tenants with a key each, beside those that are there. Nobody has the keys."""
    if count <= 1:
        return
    mac = f"sha256(CAST({_PADDED} AS bytea))" if is_postgres(served.database_url) else "randomblob(32)"
    ask(served.database_url, _TENANTS.format(count=count))
    ask(served.database_url, _KEYS.format(count=count, mac=mac, padded=_PADDED))


def fill_rows(count: int, served: Gateway) -> None:
    if count:
        fill(served.database_url, count, _DAYS, is_counted=True)


@contextmanager
def _sizes(
    sizes: Mapping[str, Callable[[Gateway], None]], store: str, backends: Backends, folder: Path
) -> Iterator[list[System]]:
    with ExitStack() as stack:
        systems = []
        for number, (name, prepare) in enumerate(sizes.items()):
            place = folder / f"{store}-{number}"
            settings: Mapping[str, str] = {}
            roots: Sequence[int] = ()
            if store == "postgres":
                settings, roots = stack.enter_context(stores())
            one = gateway(name, backends, place, settings, roots, prepare=prepare)
            systems.append(stack.enter_context(one))
        yield systems


def _table(title: str, results: Results, names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("", "CPU µs / request", "from – to", "of the first"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    first = results.median(names[0], _PLAIN.name, "cpu_us")
    for name in names:
        values = results.values(name, _PLAIN.name, "cpu_us")
        if not values:
            table.add_row(name, results.failures.get((name, _PLAIN.name), "–"))
            continue
        middle = statistics.median(values)
        ratio = f"{middle / first:.2f}" if first else "–"
        table.add_row(name, f"{middle:,.0f}", f"{min(values):,.0f}–{max(values):,.0f}", ratio)
    return table


def _by_size(given: argparse.Namespace, backends: Backends, folder: Path, console: Console) -> None:
    kinds = {
        "keys and tenants": (given.keys, fill_keys),
        "audit rows": (given.rows, fill_rows),
    }
    for store in given.store:
        for what, (counts, prepare) in kinds.items():
            sizes = {f"{count:,} {what}": partial(prepare, count) for count in counts}
            place = folder / what.replace(" ", "-")
            place.mkdir(exist_ok=True)
            with _sizes(sizes, store, backends, place) as systems:
                results = measure(
                    systems,
                    [_PLAIN],
                    backends,
                    seconds=given.seconds,
                    rounds=given.rounds,
                    folder=place,
                    say=lambda _: None,
                )
            console.print(_table(f"{store}: a plain request, 16 callers", results, list(sizes)))


def _two_processes(given: argparse.Namespace, backends: Backends, folder: Path, console: Console) -> None:
    """Each alone, then both at once, round by round."""
    for name, is_fleet in (("that share nothing", False), ("over one Redis and one Postgres", True)):
        with ExitStack() as stack:
            settings: Mapping[str, str] = {}
            roots: Sequence[int] = ()
            if is_fleet:
                settings, roots = stack.enter_context(stores())
            two = [
                stack.enter_context(_replica(number, backends, folder / f"{name}-{number}", settings, roots))
                for number in (1, 2)
            ]
            body = body_of(_PLAIN, folder)
            asked = [(each, _call(each, body)) for each in two]
            _capacity(asked, _WARM_UP_S)
            alone, together = [], []
            for _ in range(given.rounds):
                alone += [_capacity([one], given.seconds) for one in asked]
                together.append(_capacity(asked, given.seconds))
        first, both = statistics.median(alone), statistics.median(together)
        console.print(
            f"two {name}: {both:,.0f} requests/s on two cores, {first:,.0f} on one alone: "
            f"{both / first:.2f} × (by CPU; at least 1.8 must be)"
        )


@contextmanager
def _replica(
    number: int, backends: Backends, folder: Path, settings: Mapping[str, str], roots: Sequence[int]
) -> Iterator[System]:
    with gateway(f"replica {number}", backends, folder, settings, roots, tenant=f"acme{number}") as system:
        yield system


def _call(system: System, body: Path) -> Call:
    surface = _PLAIN.surface
    return Call(system.ports[surface], surface.path, body, system.headers[Caller.KNOWN])


def _capacity(asked: Sequence[tuple[System, Call]], seconds: float) -> float:
    """Requests a second that these can do with a core each, by the CPU that each request costs them."""
    before = [machine.cpu_s(system.pid) for system, _ in asked if system.pid]
    loads = [start_load(call, Load(_PLAIN.callers, seconds)) for _, call in asked]
    told = [told_by(load) for load in loads]
    after = [machine.cpu_s(system.pid) for system, _ in asked if system.pid]
    return sum(one.ok / (end - begin) for one, begin, end in zip(told, before, after, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keys", type=int, nargs="+", default=[1, 1_000, 100_000])
    parser.add_argument("--rows", type=int, nargs="+", default=[0, 1_000_000, 10_000_000])
    parser.add_argument("--store", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"])
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="gw-scale-") as folder, Backends().started() as backends:
        _by_size(given, backends, Path(folder), console)
        _two_processes(given, backends, Path(folder), console)
    console.print(f"{machine.description()}; load average {machine.load_average():.1f}")


if __name__ == "__main__":
    main()
