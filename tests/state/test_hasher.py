"""Argon2id: the parameters, the bounds, the count."""

import asyncio
import threading

import pytest

from gateway.errors import Overloaded
from gateway.state import hasher as module
from gateway.state.hasher import Hasher, UnusableHash, argon2_matches, argon2_of

STORED = argon2_of("a key")


@pytest.fixture
def hasher():
    hasher = Hasher(threads=1, max_waiting=2)
    yield hasher
    hasher.close()


@pytest.fixture
def gate(monkeypatch):
    """Verifications wait until it is set."""
    gate = threading.Event()
    monkeypatch.setattr(module, "argon2_matches", lambda token, stored: gate.wait(10))
    yield gate
    gate.set()


def test_a_hash_is_argon2id_at_the_floor_of_owasp():
    """m=19456 KiB, t=2, p=1, stated here and not left to a library's defaults."""
    assert STORED.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_two_hashes_of_one_key_differ():
    """Each has a salt of its own."""
    assert argon2_of("a key") != STORED


def test_only_the_key_itself_matches():
    """Without a pool too, for the command line."""
    assert argon2_matches("a key", STORED)
    assert not argon2_matches("another key", STORED)


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "plain",
        STORED.replace("argon2id", "argon2i"),
        STORED.replace("m=19456", "m=99999999"),
        STORED.replace("t=2", "t=99999"),
        STORED.replace("p=1", "p=200"),
        STORED[:-8] + "\u00e9",
    ],
)
async def test_a_hash_that_is_none_of_ours_is_not_computed(hasher, stored):
    """Its parameters come from the database, and could ask for gigabytes and hours."""
    with pytest.raises(UnusableHash):
        await hasher.matches("a key", stored)


async def test_verifications_are_counted(hasher):
    """Warming up is none."""
    await hasher.start()

    assert [await hasher.matches("a key", STORED), await hasher.matches("wrong", STORED)] == [True, False]
    assert hasher.verifications == 2


async def test_beyond_the_waiting_ones_it_is_overloaded(hasher, gate):
    """One runs, two wait, the fourth is told so at once."""
    running = [asyncio.create_task(hasher.matches("a key", STORED)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await hasher.matches("a key", STORED)
    gate.set()

    assert await asyncio.gather(*running) == [True, True, True]
    assert await hasher.matches("a key", STORED)


async def test_work_that_nobody_waits_for_any_more_still_counts(hasher, gate):
    """Callers who hang up must not be a way around the bound."""
    running = [asyncio.create_task(hasher.matches("a key", STORED)) for _ in range(3)]
    await asyncio.sleep(0)
    for one in running:
        one.cancel()
    await asyncio.wait(running)

    with pytest.raises(Overloaded):
        await hasher.matches("a key", STORED)
