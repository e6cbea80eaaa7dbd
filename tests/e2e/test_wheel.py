"""The wheel, installed elsewhere, runs and migrates: nothing that it needs stays behind in the repository."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("gateway", "migrations", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_installed_wheel_runs_and_migrates(tmp_path: Path):
    """Built from a copy, unpacked into an empty place, run from another: none of it is this repository."""
    source, place, elsewhere = tmp_path / "source", tmp_path / "place", tmp_path / "else where"
    elsewhere.mkdir()
    source.mkdir()
    for name in SOURCES:
        origin = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__")
        (
            shutil.copytree(origin, source / name, ignore=ignore)
            if origin.is_dir()
            else shutil.copy(origin, source)
        )
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", place, wheel)
    run(*pip, cwd=elsewhere, PIP_DISABLE_PIP_VERSION_CHECK="1")

    def installed(*arguments: str) -> str:
        return run(sys.executable, *arguments, cwd=elsewhere, PYTHONPATH=str(place))

    where = installed(
        "-c", "import gateway, gateway.migrations; print(gateway.__file__, *gateway.migrations.__path__)"
    )
    assert where.split() == [str(place / "gateway" / "__init__.py"), str(place / "gateway" / "migrations")]
    assert json.loads(installed("-m", "gateway", "migrate", "--json"))["applied"]
    assert (
        json.loads(installed("-m", "gateway", "create-tenant", "--name", "acme", "--json"))["name"] == "acme"
    )
    assert (elsewhere / "data" / "gateway.db").exists()
    assert (place / "gateway" / "py.typed").exists()
