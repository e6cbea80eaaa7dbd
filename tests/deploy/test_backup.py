"""Backups that are made under traffic, and brought back: by the very commands of docs/DEPLOYMENT.md."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from attrs import define

from deploy.testing.guide import commands
from tests.databases import ask
from tests.engines import wait_until
from tests.fleet.callers import Load
from tests.fleet.counted_model import CountedModel, Order
from tests.gateways import SECRET, Gateway
from tests.postgres_server import PostgresServer
from tests.storage.conftest import ENGINES

SHORT = Order(tokens=4)
SOON = 60


@define
class Place:
    """Where a gateway keeps what it has, and where its backup goes."""

    folder: Path
    engine: str
    database_url: str
    programs: Path | None
    """Of Postgres, in the version of the server."""

    def run(self, command: str) -> None:
        """As an operator's shell does, in the folder of the gateway."""
        programs = (self.programs, Path(sys.executable).parent, Path("/usr/bin"), Path("/bin"))
        path = ":".join(str(one) for one in programs if one is not None)
        done = subprocess.run(
            ["sh", "-ec", command],
            cwd=self.folder,
            env={"PATH": path, "DATABASE_URL": self.database_url, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.fixture
def model() -> Iterator[CountedModel]:
    with CountedModel() as model:
        yield model


@pytest.fixture(params=ENGINES)
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """The first, and an empty one to come back in."""
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        (folder / "data").mkdir(parents=True)
        (folder / "backup").mkdir()
    if request.param == "sqlite":
        first, second = (Place(folder, "SQLite", "sqlite:///data/gateway.db", None) for folder in folders)
        return first, second
    server: PostgresServer = request.getfixturevalue("postgres_server")
    urls = [server.url(server.new_database()) for _ in folders]
    first, second = (
        Place(folder, "Postgres", url, server.program("pg_dump").parent)
        for folder, url in zip(folders, urls, strict=True)
    )
    return first, second


def gateway_at(place: Place, model: CountedModel) -> Gateway:
    return Gateway(
        place.folder,
        DATABASE_URL=place.database_url,
        GATEWAY_SECRET=SECRET,
        OLLAMA_BACKENDS=f"counted={model.url}",
    )


def test_what_was_backed_up_under_traffic_is_there_again(places: tuple[Place, Place], model: CountedModel):
    """The gateway is killed later; its data dir was saved, and what its spool has is added to the backup."""
    first, second = places
    gateway = gateway_at(first, model)
    key = gateway.make_first_key()
    gateway.start()
    with Load([gateway.url], key, SHORT, callers=4) as load:
        assert wait_until(lambda: len(load.since(0)) >= 20, SOON)
        first.run(commands(first.engine, "back up"))
        backed_up = len(load.since(0))
        assert wait_until(lambda: len(load.since(0)) >= backed_up + 20, SOON)
        assert gateway.process is not None
        gateway.process.kill()
        gateway.wait()
    shutil.copytree(first.folder / "backup", second.folder / "backup", dirs_exist_ok=True)
    shutil.copytree(first.folder / "data" / "spool", second.folder / "data" / "spool")

    second.run(commands(second.engine, "restore"))
    again = gateway_at(second, model)
    again.start()
    try:
        headers = {"Authorization": f"Bearer {key}"}
        answer = httpx.get(f"{again.url}/v1/models", headers=headers, timeout=SOON, trust_env=False)
        verified = [again.command("verify-ledger"), again.command("verify-audit")]
        entries = ask(_absolute(again), "SELECT * FROM ledger")
    finally:
        again.stop()

    assert answer.status_code == 200
    assert [one.returncode for one in verified] == [0, 0], [one.stdout + one.stderr for one in verified]
    assert len(entries) >= 10
    assert [entry for entry in entries if entry["evidence"] == "intent"] == []
    assert list((second.folder / "data" / "spool").iterdir()) == []


def _absolute(gateway: Gateway) -> str:
    return gateway.database_url.replace("sqlite:///data", f"sqlite:///{gateway.directory}/data")
