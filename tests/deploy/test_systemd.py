"""The unit for a bare machine, judged by systemd's own tools where the machine has them (Debian: systemd)."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from gateway.config import parse
from gateway.server.worker import DRAIN_S, FINAL_GRACE_S, LATE_GRACE_S

FOLDER = Path(__file__).parent.parent.parent / "deploy" / "systemd"
UNIT = FOLDER / "neuronetz-gateway.service"
# Exposure in tenths, of 100. What remains is mostly that it speaks IP, as it must.
MAX_EXPOSURE = 13

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd-analyze here; on Debian: apt install systemd"
)


def settings_of_unit() -> dict[str, str]:
    """The last value of each."""
    return dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))


def analyzed(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_systemd
def test_systemd_takes_the_unit(tmp_path: Path):
    """Every line is known and well-formed. The program is one that is there: this Python."""
    program = f'"{sys.executable}"'  # its path may hold spaces
    text = UNIT.read_text().replace("/opt/neuronetz-gateway/bin/neuronetz-gateway", program)
    (tmp_path / UNIT.name).write_text(text)
    mistaken = tmp_path / "mistaken.service"
    mistaken.write_text(text.replace("ProtectClock=yes", "ProtectKlock=yes"))

    done = analyzed("verify", "--man=no", str(tmp_path / UNIT.name))

    assert UNIT.stem not in done.stderr, done.stderr
    assert "ProtectKlock" in analyzed("verify", "--man=no", str(mistaken)).stderr


@needs_systemd
def test_it_is_exposed_as_little_as_a_server_can_be():
    done = analyzed("security", "--offline=yes", f"--threshold={MAX_EXPOSURE}", str(UNIT))

    assert done.returncode == 0, done.stdout[-2000:]


def test_a_stop_has_time_to_drain():
    """SIGTERM to this process alone, and no SIGKILL before its last words."""
    settings = settings_of_unit()

    assert float(settings["TimeoutStopSec"]) >= DRAIN_S + LATE_GRACE_S + FINAL_GRACE_S + 10
    assert settings["KillMode"] == "mixed"
    assert settings["ExecReload"].endswith("-HUP $MAINPID")


def test_the_sample_settings_are_for_this_unit():
    """They are usable as they are, and what they have written is where the unit lets it be written."""
    values = dotenv_values(FOLDER / "gateway.env.example", interpolate=False)
    config = parse({name: value or "" for name, value in values.items()})

    state = f"/var/lib/{settings_of_unit()['StateDirectory']}"
    assert str(config.data_dir) == state
    assert config.database_url.startswith(f"sqlite:///{state}/")
