"""What the doctor finds: of each check that it passes, and that it fails with a remedy."""

import ipaddress
import os
import shutil
import socket
from pathlib import Path

import pytest
from attrs import evolve

from gateway.doctor import backends, probing, stores
from gateway.doctor.files import is_lent
from gateway.doctor.findings import Finding, Health, ok
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys
from gateway.storage.tenants import Tenants
from tests.doctor.conftest import Examined
from tests.doubles import Double
from tests.gateways import SECRET
from tests.servers import RedisServer, free_port
from tests.storage.samples import ACME, key

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file modes are those of POSIX")


async def test_a_gateway_that_lacks_nothing(examined: Examined):
    """Save a proxy, on a machine that nobody else reaches."""
    found = await examined()

    unwell = {check for check, one in found.items() if one.health in (Health.FAILED, Health.WARNING)}
    assert unwell <= {"proxy"}
    assert set(found) == {
        "database", "migrations", "secret", "clock", "audit rights", "prompts", "redis", "data dir",
        "disk", "file modes",
        "backend double", "backend double access", "backend double slots", "time-outs", "proxy",
        "ops address",
    }  # fmt: skip


async def test_whatever_is_wrong_comes_with_a_remedy(examined: Examined):
    found = await examined(
        REDIS_URL=f"redis://127.0.0.1:{free_port()}",
        GATEWAY_SECRET=SECRET,
        OLLAMA_BACKENDS=f"http://127.0.0.1:{free_port()}",
        GATEWAY_BIND="0.0.0.0:8080",
        GATEWAY_OPS_BIND="0.0.0.0:9090",
        GATEWAY_DRAIN_S="600",
        GATEWAY_CHUNK_GAP_TIMEOUT_S="1",
    )

    unwell = [one for one in found.values() if one.health in (Health.FAILED, Health.WARNING)]
    assert {one.check for one in unwell} >= {"redis", "proxy", "ops address", "time-outs"}
    assert all(one.remedy for one in unwell)


# ── the stores ───────────────────────────────────────────────────────────────────────────


async def test_a_database_that_is_not_there(examined: Examined, tmp_path: Path):
    found = await examined(DATABASE_URL=f"sqlite:///{tmp_path}/none.db")

    assert found["database"].health is Health.FAILED
    assert "migrate" in found["database"].sentence
    assert "disk" in found, "the other checks go on"


async def test_a_database_that_is_behind(examined: Examined, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "pending", lambda _: ["0099_something"])

    found = await examined()

    assert found["migrations"] == Finding(
        "migrations",
        Health.FAILED,
        "The database lacks what 0099_something would bring.",
        "neuronetz-gateway migrate",
    )
    assert found["secret"].health is Health.SKIPPED


async def test_a_secret_that_the_keys_were_not_made_under(examined: Examined, tmp_path: Path):
    """And nothing of it is told."""
    assert (await examined(GATEWAY_SECRET=SECRET))["secret"].health is Health.OK
    url = f"sqlite:///{tmp_path}/gateway.db"
    async with database_at(url) as database:
        await Tenants(database).add(ACME)
        await Keys(database).add(key())

    other = (await examined(GATEWAY_SECRET=SECRET[::-1]))["secret"]

    assert other.health is Health.FAILED
    assert SECRET[::-1] not in repr(other)


@pytest.mark.parametrize(
    ("skew_s", "health"), [(0.01, Health.OK), (-5.0, Health.WARNING), (3600.0, Health.FAILED)]
)
def test_clocks_that_differ(skew_s: float, health: Health):
    assert stores._skew("clock", "the database", skew_s).health is health


async def test_a_redis_that_is_well(examined: Examined, redis_server: RedisServer):
    found = await examined(REDIS_URL=redis_server.url, GATEWAY_SECRET=SECRET)

    assert [found[check].health for check in ("redis", "redis persistence", "redis clock")] == [Health.OK] * 3
    assert redis_server.password not in repr(found)


async def test_a_redis_that_would_drop_counters(examined: Examined, redis_server: RedisServer):
    redis_server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        found = await examined(REDIS_URL=redis_server.url, GATEWAY_SECRET=SECRET)
    finally:
        redis_server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")

    assert found["redis"].health is Health.FAILED
    assert "allkeys-lru" in found["redis"].sentence


@pytest.mark.parametrize(
    ("told", "health"),
    [
        ({"redis_version": "6.2.1"}, Health.FAILED),
        ({"redis_version": "7.2.4", "aof_enabled": 1}, Health.OK),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, Health.OK),
    ],
    ids=["old", "redis", "valkey"],
)
def test_how_old_a_redis_may_be(told: dict[str, object], health: Health):
    assert next(iter(stores._of_info(told))).health is health


# ── files ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("mode", "owner", "group", "lent"),
    [
        (0o640, 0, 10001, True),
        (0o440, 0, 10001, True),
        (0o644, 0, 10001, False),
        (0o660, 0, 10001, False),
        (0o640, 0, 100, False),
        (0o640, 10001, 10001, False),
    ],
    ids=["ours to read", "nobody's to write", "all read", "we write", "of another group", "ours"],
)
def test_settings_that_root_lends_to_a_service(mode: int, owner: int, group: int, lent: bool):
    """It reads them by its group, and can't change them; a file of its own has to be closed to its group."""
    file = os.stat_result((mode, 1, 1, 1, owner, group, 0, 0, 0, 0))

    assert is_lent(file, user=10001, group=10001) == lent


async def test_files_that_others_can_read(examined: Examined, tmp_path: Path):
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "secret").chmod(0o644)
    os.chmod(tmp_path, 0o755)

    found = await examined()

    assert found["file modes"].health is Health.WARNING
    assert found["file modes"].remedy.startswith("chmod go= ")
    assert str(tmp_path / "secret") in found["file modes"].remedy


async def test_a_disk_that_is_nearly_full(examined: Examined, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage("/")
    for free, health in ((300, Health.WARNING), (100, Health.FAILED)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=free << 20))
        assert (await examined())["disk"].health is health


async def test_a_data_dir_that_is_closed(examined: Examined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Root may write anywhere, so the question is answered for it."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)

    found = await examined(GATEWAY_DATA_DIR=str(tmp_path / "not" / "there"))

    assert found["data dir"].health is Health.FAILED
    assert found["data dir"].remedy.startswith(f"Give {tmp_path} ")


# ── backends ─────────────────────────────────────────────────────────────────────────────


async def test_a_backend_that_answers_elsewhere_too(
    examined: Examined, model_server: Double, monkeypatch: pytest.MonkeyPatch
):
    """Whoever reaches it there passes by every key. (127.0.0.1 stands for an address of the network.)"""
    monkeypatch.setattr(backends, "own_addresses", lambda: ["127.0.0.1"])

    found = (await examined())["backend double access"]

    assert found.health is Health.FAILED
    assert "OLLAMA_HOST=127.0.0.1:11434" in found.remedy


@pytest.mark.parametrize(
    ("address", "status", "health"),
    [
        ("10.0.0.7", 200, Health.WARNING),
        ("8.8.8.8", 200, Health.FAILED),
        ("8.8.8.8", 401, Health.OK),
    ],
)
async def test_a_backend_on_another_machine(
    examined: Examined, monkeypatch: pytest.MonkeyPatch, address: str, status: int, health: Health
):
    """It should ask for a key; on a public address it must."""

    async def addresses(_: str) -> list[ipaddress.IPv4Address]:
        return [ipaddress.IPv4Address(address)]

    async def get(*_: object) -> probing.Told:
        return probing.Told(status, "", b"")

    monkeypatch.setattr(backends, "_addresses", addresses)
    monkeypatch.setattr(backends, "get", get)

    assert (await examined())["backend double access"].health is health


@pytest.mark.parametrize(
    ("slots", "health"),
    [("", Health.WARNING), (";slots=4", Health.OK), (";slots=9", Health.WARNING)],
    ids=["none", "as many", "more"],
)
async def test_slots_and_what_the_backend_does(
    examined: Examined, model_server: Double, monkeypatch: pytest.MonkeyPatch, slots: str, health: Health
):
    monkeypatch.setenv("OLLAMA_NUM_PARALLEL", "4")

    found = await examined(OLLAMA_BACKENDS=f"double={model_server.url}{slots}")

    assert found["backend double slots"].health is health


async def test_llama_cpp_tells_its_slots(engine_greeting, examined: Examined):
    """The real one, by /props."""
    found = await examined(OLLAMA_BACKENDS=f"words={engine_greeting.url};kind=openai;slots=1000")

    assert found["backend words slots"].health is Health.WARNING


async def test_no_backend_at_all(examined: Examined):
    assert (await examined(OLLAMA_BACKENDS=","))["backends"].health is Health.FAILED


# ── the road ─────────────────────────────────────────────────────────────────────────────


async def test_a_caddy_that_would_give_up_first(examined: Examined, tmp_path: Path):
    (tmp_path / "Caddyfile").write_text(
        "gateway.example {\n reverse_proxy 127.0.0.1:8080 {\n  transport http {\n"
        "   response_header_timeout 30s\n   read_timeout 10m\n  }\n }\n}\n"
    )

    found = (await examined())["time-outs"]

    assert found.health is Health.WARNING
    assert found.sentence.startswith("response_header_timeout in Caddyfile is 30 s")


async def test_a_proxy_that_is_named(examined: Examined):
    assert (await examined(GATEWAY_TRUSTED_PROXIES="127.0.0.1"))["proxy"].health is Health.OK


async def test_a_web_server_that_is_not_named(examined: Examined, monkeypatch: pytest.MonkeyPatch):
    async def is_open(host: str, port: int) -> bool:
        return port == 443

    monkeypatch.setattr("gateway.doctor.road.is_open", is_open)

    assert "GATEWAY_TRUSTED_PROXIES=127.0.0.1" in (await examined())["proxy"].remedy


async def test_whether_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert await probing.is_open("127.0.0.1", listener.getsockname()[1])
    assert not await probing.is_open("127.0.0.1", free_port())
    assert all(not address.startswith("127.") for address in probing.own_addresses())


def test_a_finding_that_is_fine_has_nothing_to_do():
    assert evolve(ok("a", "b"), remedy="") == ok("a", "b")
