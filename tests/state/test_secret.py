"""The secret: where it comes from, how it is made, and that the stored keys were made under it."""

import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from loguru import logger

from gateway.config import Config, parse
from gateway.state.secret import confirm_secret, load_secret
from gateway.storage.keys import Keys
from gateway.storage.meta import Meta
from gateway.storage.refusals import SecretUnusable
from gateway.storage.tenants import Tenants
from tests.storage.samples import ACME, SECRET, key

GIVEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


@pytest.fixture
def config(tmp_path) -> Config:
    return parse({"GATEWAY_DATA_DIR": str(tmp_path / "data")})


def test_a_given_secret_is_used_and_no_file_is_made(tmp_path):
    """GATEWAY_SECRET stands above the file."""
    config = parse({"GATEWAY_DATA_DIR": str(tmp_path), "GATEWAY_SECRET": GIVEN})

    assert load_secret(config) == GIVEN.encode()
    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once_for_its_owner_only(config):
    """32 random bytes in hexadecimal, mode 0600, in a directory of mode 0700."""
    secret = load_secret(config)
    file = config.data_dir / "secret"

    assert len(bytes.fromhex(secret.decode())) == 32
    assert load_secret(config) == secret
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(config.data_dir.stat().st_mode)) == (0o600, 0o700)


def test_the_text_of_the_file_means_the_same_in_the_environment(config, tmp_path):
    """So that a secret that was made can be moved to a secret store."""
    made = load_secret(config)

    moved = parse({"GATEWAY_SECRET": (config.data_dir / "secret").read_text().strip()})

    assert load_secret(moved) == made


def test_of_those_who_race_one_makes_the_secret(config):
    """Whoever comes first; the others read that one, and never half of it."""
    everybody_is_here = Barrier(16)

    def load(_: int) -> bytes:
        everybody_is_here.wait()
        return load_secret(config)

    with ThreadPoolExecutor(16) as pool:
        secrets = set(pool.map(load, range(16)))

    assert len(secrets) == 1


def test_processes_that_race_get_one_secret(config):
    """As `create-key` and `serve` do, when both are started on a new machine."""
    program = (
        "import sys; from gateway.config import parse; from gateway.state.secret import load_secret;"
        "print(load_secret(parse({'GATEWAY_DATA_DIR': sys.argv[1]})))"
    )
    command = [sys.executable, "-c", program, str(config.data_dir)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]

    assert len({process.communicate(timeout=60)[0] for process in processes}) == 1


def test_what_a_killed_process_left_is_no_obstacle(config):
    """It died before the secret was whole, so nobody has used it."""
    config.data_dir.mkdir()
    (config.data_dir / "secret.new").write_text("ha")

    assert len(load_secret(config)) == 64


def test_a_secret_that_others_can_read_is_warned_about(config):
    """It works: a mount may have no better modes to give."""
    secret = load_secret(config)
    (config.data_dir / "secret").chmod(0o644)
    lines: list[str] = []
    sink = logger.add(lines.append, format="{message}")

    assert load_secret(config) == secret
    logger.remove(sink)
    assert lines == [f"the secret {config.data_dir}/secret can be read by others: chmod 600 it\n"]


@pytest.mark.parametrize("text", ["", "short\n"])
def test_a_secret_that_is_too_short_is_refused(config, text):
    """An empty file is no secret: every key's hash could be computed by anybody."""
    config.data_dir.mkdir()
    (config.data_dir / "secret").write_text(text)

    with pytest.raises(SecretUnusable, match="has fewer than 32 characters"):
        load_secret(config)


def test_a_place_that_can_not_be_is_told(tmp_path):
    """In one sentence that names both ways on."""
    (tmp_path / "data").touch()

    with pytest.raises(SecretUnusable, match=r"can't be read or made: .* Mend that, or set GATEWAY_SECRET\."):
        load_secret(parse({"GATEWAY_DATA_DIR": str(tmp_path / "data")}))


async def test_another_secret_than_that_of_the_keys_is_told(database):
    """One sentence at the start, instead of a 401 for everybody."""
    meta = Meta(database)
    await confirm_secret(meta, b"an earlier one, that no key was made under")
    await confirm_secret(meta, SECRET)
    await Tenants(database).add(ACME)
    await Keys(database).add(key(1))
    await confirm_secret(meta, SECRET)

    with pytest.raises(SecretUnusable, match="keys in this database were made under another secret"):
        await confirm_secret(meta, b"another one")


async def test_the_database_does_not_hold_the_secret(database, tmp_path):
    """Its fingerprint tells it from others, and no more."""
    await confirm_secret(Meta(database), SECRET)

    assert not any(SECRET in file.read_bytes() for file in tmp_path.iterdir())
