"""Python child processes of the demo: which environment they see, and how they end with their parent."""

import ctypes
import importlib.util
import os
import signal
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]

# What a child needs to run at all. The rest stays out: the gateway's secrets and database address live in
# the environment too.
_KEPT = frozenset({"PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TEMP", "SYSTEMROOT", "VIRTUAL_ENV"})
_KEPT_PREFIXES = ("LD_", "DYLD_", "PYTHON", "GGML_", "CUDA_", "HIP_", "ROCR_", "COVERAGE_")

_PR_SET_PDEATHSIG = 1  # prctl(2)


def command(module: str, *arguments: str) -> list[str]:
    """The command line that runs a module of the gateway with this interpreter.

    `-P` keeps the working directory off the import path: a file there named like a library must not be run.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The child's environment: it finds the gateway where this process found it.

    GGML_NO_BACKTRACE: an engine that aborts should end, not run gdb on itself for seconds.
    """
    kept = {
        name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)
    }
    paths = (str(_ROOT), kept.get("PYTHONPATH", ""))
    return {**kept, "GGML_NO_BACKTRACE": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def missing(*libraries: str) -> list[str]:
    """Those of `libraries` that are not installed; nothing is imported."""
    return [library for library in libraries if importlib.util.find_spec(library) is None]


def end_with_parent() -> None:
    """Have Linux kill this process when the thread that started it ends, however it ends.

    Elsewhere `wait_for_parent` has to do.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_parent() -> None:
    """Return when the parent has closed our standard input: at the latest when it is gone."""
    sys.stdin.buffer.read()
