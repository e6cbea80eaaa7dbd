"""The house's floors, read from the imports: they only go down, and the pure rooms stay pure.

See docs/ARCHITECTURE.md. This is the first test of the repository: when it fails, nothing else matters yet.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gateway"

# From the ground up. A room may import rooms of lower floors and itself; rooms of one floor that may meet
# are listed together in NEIGHBOURS.
FLOORS: list[set[str]] = [
    {"errors"},
    {"model", "accounting"},
    {
        "rules",
        "formats",
        "config",
        "postgres_address",
        "redis_address",
        "several_hosts",
        "secret_files",
        "ports",
        "patience",
    },
    {"storage", "state", "spool", "backends", "sinks", "demo", "middleware", "proxy"},
    {"server"},
    {"app", "resources", "reloading", "process", "ops", "doctor"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NEIGHBOURS: dict[str, set[str]] = {
    "config": {"postgres_address", "redis_address", "secret_files"},
    "postgres_address": {"several_hosts"},
    "redis_address": {"several_hosts"},
    "model": {"accounting"},
    "formats": {"rules"},
    "ports": {"formats", "rules"},
    "state": {"storage"},
    "proxy": {"middleware"},
    "app": {"resources"},
    "process": {"app", "resources", "ops", "reloading"},
    "ops": {"resources"},
}
PURE_ROOMS = {
    "errors",
    "model",
    "accounting",
    "rules",
    "formats",
    "ports",
    "postgres_address",
    "redis_address",
    "several_hosts",
}
IMPURE = {
    "asyncio", "time", "random", "secrets", "uuid", "socket", "threading", "os", "logging", "anyio",
    "starlette", "hypercorn", "aiohttp", "databases", "sqlalchemy", "aiosqlite", "asyncpg", "coredis",
    "hiredis", "loguru",
}  # fmt: skip
ONLY_IN = {
    "starlette": {"middleware", "proxy", "app", "ops"},
    "prometheus_client": {"sinks", "ops"},
    "opentelemetry": {"sinks"},
    "hypercorn": {"server"},
    "click": {"cli"},
    "databases": {"storage"},
    "aiosqlite": {"storage"},
    "asyncpg": {"storage"},
    "psycopg": {"storage"},
    "yoyo": {"storage"},
    "passlib": {"state"},
    "cryptography": {"state"},
    "coredis": {"state"},
    "hiredis": {"state"},
    "aiohttp": {"backends"},
    "aiohappyeyeballs": {"backends"},
    "httptools": {"server", "backends"},
    "xllamacpp": {"demo"},
    "gguf": {"demo"},
}

# May be imported where they are chosen, not at the top: what they bring takes a third of the memory of
# an idle gateway, and half of its time to start.
HEAVY = ("gateway.storage.postgres.", "gateway.storage.sqlite.", "gateway.state.redis_", "cryptography.")


def modules() -> Iterator[tuple[str, Path, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        if path.name != "__init__.py" or path.parent != ROOT:
            yield room_of(path), path, ast.parse(path.read_text())


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor they reach"
            if node.module == "gateway":
                yield from (f"gateway.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


MODULES = list(modules())
EACH_MODULE = pytest.mark.parametrize(
    ("room", "tree"),
    [pytest.param(room, tree, id=str(path.relative_to(ROOT))) for room, path, tree in MODULES],
)


def test_every_room_has_its_floor():
    """A new room is put on a floor here, and into docs/ARCHITECTURE.md, before it is used."""
    assert {room for room, _, _ in MODULES} <= set(FLOOR_OF)


@EACH_MODULE
def test_imports_only_go_down(room: str, tree: ast.Module):
    """No upward edge, and none across the wings."""
    for name in imports_of(tree):
        if name.startswith("gateway."):
            other = name.split(".")[1]
            allowed = (
                other == room or FLOOR_OF[other] < FLOOR_OF[room] or other in NEIGHBOURS.get(room, set())
            )
            assert allowed, f"{room} may not import {name}"


@EACH_MODULE
def test_imports_stand_at_the_top(room: str, tree: ast.Module):
    """An import inside a function is an edge that nobody sees. Some are worth it, and are named above."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            hidden = [name for name in imports_of(node) if not name.startswith(HEAVY)]
            assert not hidden, f"import of {hidden} inside {node.name}"


@EACH_MODULE
def test_pure_rooms_import_nothing_that_acts(room: str, tree: ast.Module):
    """Rules and formats have no clock, no randomness, no await, no driver: they are given values."""
    if room in PURE_ROOMS:
        assert not {name.split(".")[0] for name in imports_of(tree)} & IMPURE
        assert not any(isinstance(node, ast.Await) for node in ast.walk(tree))


@EACH_MODULE
def test_libraries_stay_in_their_rooms(room: str, tree: ast.Module):
    """One adapter knows a driver; whoever replaces it looks in one place."""
    for name in imports_of(tree):
        rooms = ONLY_IN.get(name.split(".")[0])
        assert rooms is None or room in rooms, f"{room} may not import {name}"


def test_no_import_goes_in_a_circle():
    """Modules can be read in an order in which each builds on what was read."""
    names = {name_of(path) for _, path, _ in MODULES}
    edges = {name_of(path): {name for name in imports_of(tree) if name in names} for _, path, tree in MODULES}
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " → ".join((*above[above.index(name) :], name))
        if name not in done:
            for other in sorted(edges[name] - {name}):
                visit(other, (*above, name))
            done.add(name)

    for name in sorted(names):
        visit(name, ())


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_what_not_everybody_needs_is_imported_by_those_who_do():
    """Their drivers and ciphers are a third of the memory that a gateway begins with."""
    heavy = "coredis", "asyncpg", "psycopg", "sqlalchemy", "cryptography", "opentelemetry", "xllamacpp"
    code = f"import sys, gateway.__main__; print([name for name in {heavy} if name in sys.modules])"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "[]"
