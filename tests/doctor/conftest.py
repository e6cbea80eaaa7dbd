"""An examination of settings that a test makes, in an empty directory."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.config import parse
from gateway.doctor.examination import examine
from gateway.doctor.findings import Finding
from gateway.storage.migrations import migrate
from tests.doubles import Double

Examined = Callable[..., Awaitable[dict[str, Finding]]]


@pytest.fixture
def model_server():
    with Double() as one:
        yield one


@pytest.fixture
def examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_server: Double) -> Examined:
    """Findings by check. Without settings of the test's own, nothing is wrong."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gateway.doctor.backends.own_addresses", list)
    usual = {
        "DATABASE_URL": f"sqlite:///{tmp_path}/gateway.db",
        "GATEWAY_DATA_DIR": str(tmp_path),
        "OLLAMA_BACKENDS": f"double={model_server.url}",
    }
    migrate(usual["DATABASE_URL"])

    async def examined_with(**settings: str) -> dict[str, Finding]:
        found = [finding async for finding in examine(parse({**usual, **settings}))]
        return {finding.check: finding for finding in found}

    return examined_with
