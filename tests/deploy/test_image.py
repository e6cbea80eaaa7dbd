"""What the image is made of: read from its files. `make test-deploy` builds it."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.doubles import Double, answer
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text()
HEALTHCHECK = ROOT / "deploy/healthcheck.py"


def test_the_label_says_the_version():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")

    assert f'image.version="{setup["metadata"]["version"]}"' in DOCKERFILE


def test_every_package_in_it_is_locked_with_hashes():
    """Those that it runs with, and those that build it."""
    for name in ("runtime", "build"):
        text = (ROOT / f"requirements/{name}.txt").read_text()
        requirements = re.findall(r"^[a-z].*?(?=^[a-z]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert requirements
        assert all("--hash=sha256:" in requirement for requirement in requirements)
        assert f"--requirement requirements/{name}.txt" in DOCKERFILE


def test_what_is_built_with_stays_in_the_first_stage():
    build, final = DOCKERFILE.split("\nFROM ${PYTHON_IMAGE}\n")

    assert "binutils" in build
    assert "apt-get" not in final
    assert "pip install" not in final


def test_nobody_is_root_and_no_shell_stands_between_signals_and_the_process():
    assert "\nUSER 10001:10001\n" in DOCKERFILE
    assert '\nENTRYPOINT ["neuronetz-gateway"]\nCMD ["serve"]\n' in DOCKERFILE


@pytest.mark.parametrize("name", [".git", ".env", "data", "secrets", "config", "tests"])
def test_secrets_and_data_never_reach_the_engine(name: str):
    """Everything is left out but what is named."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()

    assert lines[1] == "*"
    assert not [line for line in lines if line.startswith("!") and line[1:].split("/")[0] == name]


def health(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IS", HEALTHCHECK],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_health_check_fails_where_nobody_listens():
    done = health(GATEWAY_OPS_BIND=f"127.0.0.1:{free_port()}")

    assert done.returncode == 1
    assert done.stdout.startswith("no answer from port")


@pytest.mark.parametrize(
    "names", [{"GATEWAY_OPS_BIND": "{bind}"}, {"GATEWAY_OPS_BIND": "off", "GATEWAY_BIND": "{bind}"}]
)
@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_asks_the_operators_address_or_the_only_one(
    names: dict[str, str], status: int, code: int
):
    """A 503 is an answer, but not that of a healthy process."""
    with Double({"/healthz": answer(status, {"status": "said"})}) as double:
        done = health(
            **{name: text.format(bind=double.url.removeprefix("http://")) for name, text in names.items()}
        )

    assert (done.returncode, done.stdout.split()[1]) == (code, str(status))
