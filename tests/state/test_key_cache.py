"""Whose key is this? The order of checks, what they cost, and how soon a change shows."""

import asyncio
import random
from itertools import chain

import pytest
from attrs import evolve
from loguru import logger

from gateway.errors import Overloaded, StoreUnavailable, Unauthenticated
from gateway.model import Principal
from gateway.rules.keys import new_token
from gateway.state import key_cache
from gateway.state.hasher import Hasher, argon2_of
from gateway.state.key_cache import VerifiedKeys
from tests.state.doubles import NOW, SetClock, Store
from tests.storage.samples import SECRET, key, token

TOKEN = token(1)
KEY = key(1, argon2=argon2_of(TOKEN))
PRINCIPAL = Principal(tenant_id="t1", tenant="acme", key_id="k1", key="key 1", prefix=KEY.prefix)
MISTYPED = TOKEN[:-1] + ("0" if TOKEN[-1] != "0" else "1")


def token_with_the_prefix_of(seed: int, *, other_secret: int) -> str:
    """What somebody makes who knows the public prefix: another secret, and the checksum right."""
    prefix, secret = random.Random(seed), random.Random(other_secret)
    draws = chain((prefix.randrange(62) for _ in range(8)), (secret.randrange(62) for _ in range(34)))
    return new_token(lambda below: next(draws))


WRONG = token_with_the_prefix_of(1, other_secret=99)


@pytest.fixture
def clock():
    return SetClock()


@pytest.fixture
def store(clock):
    store = Store(now=clock.now)
    store.put(KEY)
    return store


@pytest.fixture
def hasher():
    hasher = Hasher(threads=1)
    yield hasher
    hasher.close()


@pytest.fixture
async def keys(store, hasher, clock):
    """Polled once, then only when a test does so."""
    keys = VerifiedKeys(store, store.touch, hasher, SECRET, clock)
    await keys.watch.poll()
    yield keys
    store.is_down = False
    store.answering.set()
    await keys.stop()


# ── the order of checks, and what they cost ──────────────────────────────────────────────


async def test_a_good_key_is_read_and_proven_once(keys, store, hasher):
    """From then on it is one look-up in memory, by the keyed hash."""
    principals = [await keys.principal_of(TOKEN) for _ in range(3)]

    assert principals == [PRINCIPAL] * 3
    assert (store.reads, hasher.verifications) == ([KEY.prefix], 1)


async def test_what_is_known_of_a_key_is_told_without_waiting(keys, store):
    """Of a good one and of a wrong one, once each was looked up; what is no key never has to be."""
    unknown = [keys.at_once(text) for text in (TOKEN, WRONG)]
    for text in (TOKEN, WRONG):
        await keys.principal_of(text)

    assert unknown == [None, None]
    assert keys.at_once(TOKEN) == PRINCIPAL
    assert isinstance(keys.at_once(WRONG), Unauthenticated)
    assert isinstance(keys.at_once(MISTYPED), Unauthenticated)


async def test_what_may_have_changed_is_not_told_at_once(keys, clock):
    for text in (TOKEN, WRONG):
        await keys.principal_of(text)

    clock.passed += key_cache.FRESH_S

    assert [keys.at_once(text) for text in (TOKEN, WRONG)] == [None, None]


@pytest.mark.parametrize(
    "text", [MISTYPED, "", "nz_", TOKEN + "\n", "nz_' OR '1'='1", TOKEN[:50] + "é"], ids=ascii
)
async def test_what_is_no_key_costs_neither_a_read_nor_argon2(keys, store, hasher, text):
    """Shape and checksum come first."""
    assert await keys.principal_of(text) is None
    assert (store.reads, hasher.verifications) == ([], 0)


async def test_a_wrong_key_costs_no_argon2(keys, store, hasher):
    """The public prefix of a good key and another secret: the keyed hash tells."""
    assert await keys.principal_of(WRONG) is None
    assert await keys.principal_of(TOKEN) == PRINCIPAL
    assert await keys.principal_of(WRONG) is None
    assert (store.reads, hasher.verifications) == ([KEY.prefix], 1)


async def test_an_unknown_key_is_looked_up_once(keys, store, hasher):
    """As long as nothing changes in the database."""
    answers = [await keys.principal_of(token(5)) for _ in range(3)]

    assert answers == [None, None, None]
    assert (len(store.reads), hasher.verifications) == (1, 0)


async def test_a_new_key_works_after_one_poll(keys, store):
    """That it was unknown a moment ago is forgotten."""
    new = key(2, argon2=argon2_of(token(2)))
    before = await keys.principal_of(token(2))
    store.put(new)
    await keys.watch.poll()

    assert before is None
    assert (await keys.principal_of(token(2))) == Principal("t1", "acme", "k2", "key 2", new.prefix)


async def test_a_hundred_requests_with_one_key_share_one_check(keys, store, hasher):
    """One read and one Argon2, and all get the same answer."""
    answers = await asyncio.gather(*(keys.principal_of(TOKEN) for _ in range(100)))

    assert answers == [PRINCIPAL] * 100
    assert (store.reads, hasher.verifications) == ([KEY.prefix], 1)


async def test_who_leaves_takes_nobody_along(keys, store):
    """The first of those who wait hangs up: the check goes on for the others."""
    store.answering.clear()
    first, second = (asyncio.create_task(keys.principal_of(TOKEN)) for _ in range(2))
    await store.has_been_asked_for(KEY.prefix)
    first.cancel()
    store.answering.set()

    assert await second == PRINCIPAL
    assert (first.cancelled(), store.reads) == (True, [KEY.prefix])


async def test_a_changed_argon2_hash_is_proven_again(keys, store, hasher):
    """Only this very hash was proven."""
    await keys.principal_of(TOKEN)
    store.put(evolve(KEY, argon2=argon2_of("something else")))
    await keys.watch.poll()

    assert await keys.principal_of(TOKEN) is None
    assert hasher.verifications == 2


async def test_an_unusable_hash_is_our_fault(keys, store, hasher):
    """Tampered with, it could cost gigabytes; the caller learns nothing and is not to blame."""
    store.put(evolve(KEY, argon2=KEY.argon2.replace("m=19456", "m=4194304")))
    await keys.watch.poll()

    with pytest.raises(StoreUnavailable):
        await keys.principal_of(TOKEN)


# ── status, and how soon a change shows ──────────────────────────────────────────────────


async def test_a_revoked_key_is_refused_after_one_poll(keys, store, hasher):
    """Re-read, but not proven again; and likewise when it is let in again."""
    answers = [await keys.principal_of(TOKEN)]
    for changed in (evolve(KEY, revoked_at=NOW), KEY):
        store.put(changed)
        await keys.watch.poll()
        answers.append(await keys.principal_of(TOKEN))

    assert answers == [PRINCIPAL, None, PRINCIPAL]
    assert (len(store.reads), hasher.verifications) == (3, 1)


async def test_a_revoked_key_is_refused_within_a_second_without_any_poll(keys, store, clock):
    """When polls hang, what was confirmed a second ago is read again."""
    await keys.principal_of(TOKEN)
    store.put(evolve(KEY, revoked_at=NOW))
    clock.pass_by(0.99)
    still = await keys.principal_of(TOKEN)
    clock.pass_by(0.01)

    assert still == PRINCIPAL
    assert await keys.principal_of(TOKEN) is None


async def test_a_change_during_argon2_is_seen(keys, store, hasher, clock):
    """Argon2 may wait its turn for long: what was read before is read again."""
    proven = hasher.matches

    async def slow(token, stored):
        store.put(evolve(KEY, revoked_at=NOW))
        clock.pass_by(1.0)
        return await proven(token, stored)

    hasher.matches = slow

    assert await keys.principal_of(TOKEN) is None
    assert len(store.reads) == 2


async def test_a_key_expires_by_the_clock(keys, store, clock):
    """Nothing changes in the database, and nothing is read, when its time has come."""
    store.put(evolve(KEY, expires_at=NOW + 0.5))
    await keys.watch.poll()
    before = await keys.principal_of(TOKEN)
    clock.pass_by(0.5)

    assert (before, await keys.principal_of(TOKEN)) == (PRINCIPAL, None)
    assert len(store.reads) == 1


@pytest.mark.parametrize("off_s", [-86_400, 86_400])
async def test_the_databases_clock_decides_when_a_key_expires(keys, store, clock, off_s):
    """C16: a replica whose own clock is a day off lets nobody in for longer, and refuses nobody before."""
    store.now = lambda: clock.now() + off_s
    store.put(evolve(KEY, expires_at=NOW + off_s + 60))
    await keys.watch.poll()
    seen = [await keys.principal_of(TOKEN)]
    clock.pass_by(59)
    seen.append(await keys.principal_of(TOKEN))
    clock.pass_by(1)
    seen.append(await keys.principal_of(TOKEN))

    assert seen == [PRINCIPAL, PRINCIPAL, None]


async def test_what_became_of_a_caller_is_read_once_a_change(keys, store):
    """For running requests: an expired key is still its caller, a revoked one is nobody."""
    await keys.principal_of(TOKEN)
    before = len(store.reads)
    same = [await keys.renewed(PRINCIPAL) for _ in range(3)]
    store.put(evolve(KEY, expires_at=NOW - 1))
    await keys.watch.poll()
    expired = await keys.renewed(PRINCIPAL)
    store.put(evolve(KEY, tenant=evolve(KEY.tenant, suspended_at=NOW)))
    await keys.watch.poll()
    suspended = await keys.renewed(PRINCIPAL)
    store.put(evolve(KEY, revoked_at=NOW))
    await keys.watch.poll()

    assert same == [PRINCIPAL] * 3
    assert expired == PRINCIPAL
    assert suspended == evolve(PRINCIPAL, is_suspended=True)
    assert await keys.renewed(PRINCIPAL) is None
    assert len(store.reads) - before == 3


async def test_a_successor_is_known_by_its_account(keys, store):
    """What it takes, costs and leaves in the audit log is of the first key of the line."""
    store.put(key(2, argon2=argon2_of(token(2)), account_id="k1"))
    await keys.watch.poll()

    found = await keys.principal_of(token(2))

    assert found is not None
    assert (found.key_id, found.prefix) == ("k1", key(2).prefix)


async def test_what_runs_is_told_by_tenant_and_prefix_also_of_a_successor(keys, store):
    """By its account, which is what a reservation is made for; of the keys that are it, the last used."""
    store.put(KEY, key(2, argon2=argon2_of(token(2)), account_id="k1"))
    await keys.watch.poll()

    await keys.principal_of(token(2))

    assert keys.holders_of({"k1", "k9"}) == {"k1": ("acme", key(2).prefix)}


async def test_a_deleted_key_is_refused(keys, store):
    """Gone from the database, gone from memory."""
    await keys.principal_of(TOKEN)
    store.keys.clear()
    store.put()
    await keys.watch.poll()

    assert await keys.principal_of(TOKEN) is None


async def test_a_renamed_tenant_shows(keys, store):
    """The principal is that of the record as it is now."""
    await keys.principal_of(TOKEN)
    store.put(evolve(KEY, tenant=evolve(KEY.tenant, name="renamed")))
    await keys.watch.poll()

    assert await keys.principal_of(TOKEN) == evolve(PRINCIPAL, tenant="renamed")


async def test_a_change_that_somebody_tells_of_is_read_at_once(keys, store):
    """Long before the next poll; and what is answered says as of when it was read."""
    before = await keys.principal_of(TOKEN)
    store.put(evolve(KEY, tenant=evolve(KEY.tenant, name="renamed")))

    after = await keys.principal_of(TOKEN, store.number)

    assert after == evolve(PRINCIPAL, tenant="renamed")
    assert (before.epoch, after.epoch) == (1, 2)


async def test_who_knows_of_a_change_gets_no_answer_from_before(keys, store):
    """Though somebody is just being told what was read before."""
    await keys.principal_of(TOKEN)
    store.put(KEY)
    await keys.watch.poll()
    store.answering.clear()
    slow = asyncio.create_task(keys.principal_of(TOKEN))
    await store.has_been_asked_for(KEY.prefix, times=2)
    store.put(evolve(KEY, revoked_at=NOW))
    told = asyncio.create_task(keys.principal_of(TOKEN, store.number))
    await asyncio.sleep(0)
    store.answering.set()

    assert await told is None
    await slow


async def test_who_knows_of_a_change_is_not_let_in_without_the_database(keys, store):
    """Fifteen minutes are for what nobody knows to have changed."""
    await keys.principal_of(TOKEN)
    store.put(evolve(KEY, revoked_at=NOW))
    store.is_down = True

    with pytest.raises(StoreUnavailable):
        await keys.principal_of(TOKEN, store.number)


# ── while the database is down ───────────────────────────────────────────────────────────


async def test_known_keys_go_on_for_fifteen_minutes_without_the_database(keys, store, clock):
    """Then it can't be known any more: our fault, so never "wrong key"."""
    await keys.principal_of(TOKEN)
    store.is_down = True
    clock.pass_by(899)
    during = await keys.principal_of(TOKEN)
    clock.pass_by(1)

    assert during == PRINCIPAL
    with pytest.raises(StoreUnavailable):
        await keys.principal_of(TOKEN)


@pytest.mark.parametrize(
    "unknown", [token(5), WRONG, TOKEN], ids=["unknown", "wrong", "good, but not seen yet"]
)
async def test_without_the_database_nobody_is_called_wrong(keys, store, unknown):
    """503 for whoever is not known yet, with whatever key."""
    store.is_down = True

    with pytest.raises(StoreUnavailable):
        await keys.principal_of(unknown)


async def test_a_key_that_may_have_been_revoked_does_not_go_on(keys, store):
    """Something changed, and then the database went away before it could be read what."""
    await keys.principal_of(TOKEN)
    store.put(evolve(KEY, revoked_at=NOW))
    await keys.watch.poll()
    store.is_down = True

    with pytest.raises(StoreUnavailable):
        await keys.principal_of(TOKEN)


async def test_a_known_key_still_expires_without_the_database(keys, store, clock):
    """Its end was known before."""
    store.put(evolve(KEY, expires_at=NOW + 60))
    await keys.watch.poll()
    await keys.principal_of(TOKEN)
    store.is_down = True
    clock.pass_by(60)

    assert await keys.principal_of(TOKEN) is None


async def test_a_database_that_is_down_is_not_asked_by_everybody(keys, store, clock):
    """It fails slowly; for a second after a failure nobody waits for it, unless a poll succeeds before."""
    await keys.principal_of(TOKEN)
    store.is_down = True
    clock.pass_by(1)
    await keys.watch.poll()
    answers = [await keys.principal_of(TOKEN) for _ in range(5)]
    store.is_down = False
    await keys.watch.poll()
    answers.append(await keys.principal_of(TOKEN))

    assert (answers, store.reads) == ([PRINCIPAL] * 6, [KEY.prefix])


async def test_a_read_that_hangs_is_given_up(keys, store, monkeypatch):
    """The caller's patience is worth more than this one read."""
    monkeypatch.setattr(key_cache, "READ_S", 0.001)
    store.answering.clear()

    with pytest.raises(StoreUnavailable):
        await keys.principal_of(TOKEN)


async def test_a_start_without_the_database_lets_keys_in_once_it_is_there(store, hasher, clock):
    """`start` does not fail; until then every key gets a 503."""
    store.is_down = True
    keys = VerifiedKeys(store, store.touch, hasher, SECRET, clock)
    await keys.start()
    with pytest.raises(StoreUnavailable):
        await keys.principal_of(TOKEN)
    store.is_down = False
    await keys.watch.poll()

    assert await keys.principal_of(TOKEN) == PRINCIPAL
    await keys.stop()


# ── floods ───────────────────────────────────────────────────────────────────────────────


async def test_a_flood_of_unknown_keys_takes_one_connection_and_then_a_503(keys, store):
    """Look-ups go one at a time, 256 wait, and the rest is refused at once."""
    store.answering.clear()
    flood = [asyncio.create_task(keys.principal_of(token(seed))) for seed in range(100, 400)]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    reads_at_once = len(store.reads)
    store.answering.set()
    answers = await asyncio.gather(*flood, return_exceptions=True)

    assert reads_at_once == 1
    assert answers.count(None) == 257
    assert sum(isinstance(answer, Overloaded) for answer in answers) == 43


async def test_known_keys_are_read_again_beside_a_flood(keys, store):
    """They have a connection of their own."""
    await keys.principal_of(TOKEN)
    store.put(KEY)
    await keys.watch.poll()
    store.answering.clear()
    flood = [asyncio.create_task(keys.principal_of(token(seed))) for seed in range(100, 400)]
    known = asyncio.create_task(keys.principal_of(TOKEN))
    await store.has_been_asked_for(KEY.prefix, times=2)
    store.answering.set()

    assert await known == PRINCIPAL
    await asyncio.gather(*flood, return_exceptions=True)


async def test_a_flood_pushes_no_good_key_out_of_memory(store, hasher, clock):
    """Wrong keys never get where proven ones are."""
    keys = VerifiedKeys(store, store.touch, hasher, SECRET, clock, max_remembered=10)
    await keys.watch.poll()
    await keys.principal_of(TOKEN)
    for seed in range(100, 150):
        await keys.principal_of(token(seed))
    reads = len(store.reads)

    assert await keys.principal_of(TOKEN) == PRINCIPAL
    assert (len(store.reads), len(keys._seen)) == (reads, 10)


async def test_memory_keeps_the_keys_in_use(store, hasher, clock):
    """Beyond its bound, the key goes that was not used for the longest time."""
    store.put(*(key(seed, argon2=argon2_of(token(seed))) for seed in (2, 3)))
    keys = VerifiedKeys(store, store.touch, hasher, SECRET, clock, max_remembered=2)
    await keys.watch.poll()
    for seed in (1, 2, 1, 3, 1):
        await keys.principal_of(token(seed))

    assert hasher.verifications == 3


# ── last use, and secrecy ────────────────────────────────────────────────────────────────


async def test_last_uses_are_written_in_one_batch(keys, store, clock):
    """The latest of each key; a second flush has nothing to write."""
    await keys.principal_of(TOKEN)
    clock.pass_by(0.5)
    await keys.principal_of(TOKEN)
    await keys.principal_of(WRONG)
    await keys.last_uses.flush()
    await keys.last_uses.flush()

    assert store.touched == [{"k1": NOW + 0.5}]


async def test_last_uses_wait_for_the_database(keys, store, clock):
    """What could not be written is written later, and at the stop."""
    await keys.principal_of(TOKEN)
    store.is_down = True
    await keys.last_uses.flush()
    store.is_down = False
    await keys.stop()

    assert store.touched == [{"k1": NOW}]


async def test_a_refused_key_counts_as_not_used(keys, store):
    """Last use means that it was let in."""
    store.put(evolve(KEY, revoked_at=NOW))
    await keys.watch.poll()
    await keys.principal_of(TOKEN)
    await keys.last_uses.flush()

    assert store.touched == []


async def test_neither_logs_nor_memory_hold_a_key(keys, store):
    """Through a good key, wrong ones, an outage and a defect."""
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, format="{message} {extra}", diagnose=True, backtrace=True)
    await keys.principal_of(TOKEN)
    await keys.principal_of(WRONG)
    store.put(evolve(KEY, argon2="broken"))
    await keys.watch.poll()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await keys.principal_of(TOKEN)
        store.is_down = True
    logger.remove(sink)

    shown = "".join(lines) + repr((vars(keys), vars(keys.watch), vars(keys.last_uses)))
    assert len(lines) == 2
    assert TOKEN[11:] not in shown
    assert WRONG[11:] not in shown
