"""This machine: which cores do what, and what a tree of processes has used of them and of memory.

Two parts: `SYSTEM` is the core of what is measured; `REST` are those of everything else (callers, the
backend's double, Redis, Postgres). With one core both are the same: then times mean little, CPU per request
still does.
"""

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CORES: Final = sorted(os.sched_getaffinity(0))
SYSTEM: Final = frozenset(_CORES[-1:])
REST: Final = frozenset(_CORES[:-1]) or SYSTEM
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def on(cores: frozenset[int]) -> Iterator[None]:
    """What is started within runs there: a child has the cores of its parent from its first moment."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def tree(root: int) -> list[int]:
    """The process and its descendants that are alive."""
    found = [root]
    for pid in found:
        for task in _listed(Path(f"/proc/{pid}/task")):
            found += (int(child) for child in _text(task / "children").split())
    return found


def cpu_s(root: int) -> float:
    """What the tree has used so far, in user and in kernel mode, with children that have ended."""
    return sum(_cpu_of(pid) for pid in tree(root))


def memory_bytes(root: int) -> int:
    """What the tree has in memory; what several processes share counts once (the kernel's PSS)."""
    return sum(_pss_of(pid) for pid in tree(root))


def load_average() -> float:
    return os.getloadavg()[0]


def description() -> str:
    processor = next(
        (
            line.partition(":")[2].strip()
            for line in _text(Path("/proc/cpuinfo")).splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{len(_CORES)} × {processor}, Linux {platform.release()}, CPython {platform.python_version()}"


def _cpu_of(pid: int) -> float:
    stat = _text(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    if not stat:
        return 0.0
    # utime, stime, cutime and cstime, of which the first two are known more exactly for each thread.
    own, ended = sum(map(int, stat[11:13])) * _TICK_S, sum(map(int, stat[13:15])) * _TICK_S
    threads = [_text(task / "schedstat").split() for task in _listed(Path(f"/proc/{pid}/task"))]
    exact = sum(int(words[0]) for words in threads if words) / 1e9
    # Threads that have ended count in `own` only.
    return ended + (exact if abs(exact - own) < 3 * _TICK_S else max(exact, own))


def _pss_of(pid: int) -> int:
    for line in _text(Path(f"/proc/{pid}/smaps_rollup")).splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _listed(folder: Path) -> list[Path]:
    with contextlib.suppress(OSError):
        return list(folder.iterdir())
    return []


def _text(file: Path) -> str:
    # A process may be gone by now.
    with contextlib.suppress(OSError):
        return file.read_text()
    return ""
