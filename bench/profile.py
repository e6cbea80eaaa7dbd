"""Where a request's time goes, function by function: a gateway under Python's own profiler.

    python -m bench.profile [--system embedded] [--row "plain 16"] [--seconds 5] [--lines 40]

The profiler makes each call dearer, so read calls a request and shares, not microseconds; what a request
costs without it says `python -m bench --systems embedded --rows "plain 16"`.
"""

import argparse
import cProfile
import os
import pstats
import re
import runpy
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from bench.measuring import ROWS, body_of
from bench.programs import Call, Load, start_load, told_by
from bench.systems import Backends, embedded, fleet
from tests.gateways import Gateway

_SYSTEMS: Final = {"embedded": embedded, "fleet": fleet}
_BEGIN, _END = signal.SIGUSR1, signal.SIGUSR2
_WRITE_S: Final = 30.0
_BUILT_IN: Final = "~"


def serve_profiled(file: Path) -> None:
    """Become a gateway that profiles itself from one signal to the next, and writes what it found."""
    profile = cProfile.Profile()

    def end(*_: object) -> None:
        profile.disable()
        unfinished = file.with_suffix(".new")
        profile.dump_stats(unfinished)
        unfinished.replace(file)

    signal.signal(_BEGIN, lambda *_: profile.enable())
    signal.signal(_END, end)
    sys.argv = ["gateway", "serve"]
    runpy.run_module("gateway", run_name="__main__", alter_sys=True)


def profiled(system: str, row_name: str, seconds: float) -> tuple[int, pstats.Stats]:
    """How many requests, or pieces of streams, there were, and what the profiler saw."""
    row = next(row for row in ROWS if row.name == row_name)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gw-profile-")))
        found = folder / "profile"
        # The gateway is started in a folder of its own, where nobody finds this module otherwise.
        os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
        before = Gateway.program
        stack.callback(setattr, Gateway, "program", before)
        Gateway.program = ("-m", "bench.profile", "--serve", str(found))
        backends = stack.enter_context(Backends().started())
        place = folder / system
        place.mkdir()
        running = stack.enter_context(_SYSTEMS[system](backends, place))
        call = Call(
            running.ports[row.surface], row.surface.path, body_of(row, folder), running.headers[row.caller]
        )
        assert running.pid is not None
        told_by(start_load(call, Load(row.callers, 1.0)))
        _signal(running.pid, _BEGIN)
        told = told_by(start_load(call, Load(row.callers, seconds)))
        _signal(running.pid, _END)
        until = time.monotonic() + _WRITE_S
        while not found.exists() and time.monotonic() < until:
            time.sleep(0.05)
        return told.tokens if row.is_stream else told.ok + told.refused, pstats.Stats(str(found))


def _signal(pid: int, which: signal.Signals) -> None:
    os.kill(pid, which)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.profile",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--system", choices=_SYSTEMS, default="embedded")
    parser.add_argument("--row", choices=[row.name for row in ROWS if row.callers], default="plain 16")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--lines", type=int, default=40)
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_profiled(given.serve)
        return
    count, stats = profiled(given.system, given.row, given.seconds)
    found: dict[Any, Any] = stats.stats  # type: ignore[attr-defined]
    print(f"{sum(one[1] for one in found.values()) / count:,.0f} calls each, of {count:,}")
    print(f"\nBy room:\n{'own µs':>9}{'calls':>9}")
    for room, (own_s, calls) in sorted(by_room(found).items(), key=lambda item: -item[1][0]):
        print(f"{own_s * 1e6 / count:9.1f}{calls / count:9.2f}  {room}")
    for title, key in (("own", 2), ("with what it calls", 3)):
        print(f"\nBy time {title}:\n{'own µs':>9}{'all µs':>9}{'calls':>9}")
        for place, one in sorted(found.items(), key=lambda item: -item[1][key])[: given.lines]:
            own, whole, calls = one[2] * 1e6 / count, one[3] * 1e6 / count, one[1] / count
            print(f"{own:9.1f}{whole:9.1f}{calls:9.2f}  {_short(place[0])}:{place[1]} {place[2]}")


def by_room(found: Mapping[Any, Any]) -> dict[str, tuple[float, int]]:
    """Own time in seconds, and calls, of each room of the gateway and of each library.

    What is built in counts where it is called from: `len` of a format is the format's.
    """
    rooms: dict[str, tuple[float, int]] = {}
    for place, (_, calls, own_s, _, callers) in found.items():
        shares = (
            {caller: (one[0], one[2]) for caller, one in callers.items()}
            if place[0] == _BUILT_IN and callers
            else {place: (calls, own_s)}
        )
        for where, (some_calls, some_s) in shares.items():
            known_s, known_calls = rooms.get(_room_of(where[0]), (0.0, 0))
            rooms[_room_of(where[0])] = known_s + some_s, known_calls + some_calls
    return rooms


def _room_of(path: str) -> str:
    if made_by_attrs := re.match(r"<attrs generated methods (gateway\.\w+)", path):
        return made_by_attrs[1].replace(".", "/")
    parts = Path(_short(path).removesuffix(".py")).parts
    if parts[0] == "gateway":
        return "/".join(parts[:2])
    is_of_python = re.fullmatch(r"\d+\.\d+", parts[0])
    return parts[1] if is_of_python else parts[0]


def _short(path: str) -> str:
    for root in ("site-packages/", f"{Path.cwd()}/", "lib/python"):
        path = path.rpartition(root)[2]
    return path


if __name__ == "__main__":
    main()
