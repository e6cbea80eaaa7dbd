"""What keys and tenants go through in the database, and what is noted of it, on either engine."""

import asyncio
import itertools

import pytest
from attrs import evolve

from gateway.accounting import Policy
from gateway.errors import Unstorable
from gateway.model import KeyStatus, Tenant
from gateway.rules.addresses import networks_of
from gateway.storage.actions import Actions, Actor, now_of
from gateway.storage.keys import Keys, Proof
from gateway.storage.refusals import KeyEnded, KeyNameTaken, KeyRotated, NoSuchKey, NoSuchTenant
from gateway.storage.tenants import Tenants
from tests.storage.samples import ACME, key

EVE = Actor("eve", "ops-1")
KEY = key(1)


def proof(seed: int) -> Proof:
    made = key(seed)
    return Proof(made.id, made.prefix, made.mac, made.argon2)


@pytest.fixture
async def tenants(database):
    tenants = Tenants(database, EVE)
    await tenants.add(ACME)
    return tenants


@pytest.fixture
async def keys(database, tenants):
    keys = Keys(database, EVE)
    await keys.add(KEY)
    return keys


@pytest.fixture
def actions(database):
    return Actions(database)


async def told(actions: Actions) -> list[tuple[str, str | None, dict[str, object]]]:
    """Of each action what it was, on which key, and what changed."""
    found = await actions.latest(since=0, limit=100)
    assert all(one.actor == EVE and one.tenant_id == "t1" and one.tenant == "acme" for one in found)
    return [
        (one.action, one.key_prefix, {name: change["after"] for name, change in one.changes.items()})
        for one in found
    ]


# ── rotation ─────────────────────────────────────────────────────────────────────────────


async def test_a_successor_has_all_that_its_predecessor_had(keys, database):
    """Name, account, policy, addresses and end; only what it is known by is new."""
    old = key(2, policy=Policy(rpm=5, total_tokens=9), allow_ip=networks_of("10.0.0.0/8"), expires_at=4e9)
    await keys.add(old)

    rotation = await keys.rotate(old.prefix, proof(3), grace_s=3600, expires=None)

    made = key(3)
    assert rotation.new == evolve(
        old,
        id="k3",
        prefix=made.prefix,
        mac=made.mac,
        account_id="k2",
        created_at=rotation.new.created_at,
    )
    assert await keys.key_by_prefix(made.prefix) == rotation.new
    assert await keys.key_by_prefix(old.prefix) == rotation.old


async def test_the_old_key_goes_on_until_the_grace_is_over(keys, database):
    """By the database's clock; it is told from its successor by its name."""
    async with database.session() as connection:
        before = await now_of(connection)
    old = (await keys.rotate(KEY.prefix, proof(2), grace_s=3600, expires=None)).old

    assert old.name == f"key 1 ({KEY.prefix})"
    assert before + 3600 <= old.expires_at <= before + 3600 + 60
    assert old.status(before) is KeyStatus.ACTIVE
    assert old.status(old.expires_at) is KeyStatus.EXPIRED


async def test_no_grace_revokes_at_once(keys):
    """For a key that leaked: its running streams end, too."""
    old = (await keys.rotate(KEY.prefix, proof(2), grace_s=0, expires=None)).old

    assert old.revoked_at is not None
    assert old.expires_at is None


async def test_a_grace_never_prolongs_a_key(keys):
    """What ends in a moment ends in a moment."""
    soon = (await keys.pulse()).now + 100
    await keys.update(KEY.prefix, expires_at=soon)

    rotation = await keys.rotate(KEY.prefix, proof(2), grace_s=3600, expires=lambda now: now + 1e6)

    assert rotation.old.expires_at == soon
    assert rotation.new.expires_at > soon + 1000


async def test_a_key_is_rotated_again_and_stays_one_account(keys):
    """Of the third generation it is still the first one's id."""
    await keys.rotate(KEY.prefix, proof(2), grace_s=3600, expires=None)
    third = (await keys.rotate(key(2).prefix, proof(3), grace_s=3600, expires=None)).new

    assert third.account == "k1"
    assert [one.id for one in await keys.of_account("k1")] == ["k1", "k2", "k3"]


async def test_what_has_ended_or_has_a_successor_is_not_rotated(keys):
    """Two successors of one key would be a mistake; a revoked one has no life to hand on."""
    await keys.rotate(KEY.prefix, proof(2), grace_s=3600, expires=None)
    with pytest.raises(KeyRotated, match=f"its successor is {key(2).prefix}"):
        await keys.rotate(KEY.prefix, proof(3), grace_s=3600, expires=None)

    await keys.revoke(key(2).prefix, 1.0)
    again = await keys.rotate(KEY.prefix, proof(3), grace_s=3600, expires=None)
    with pytest.raises(KeyEnded, match="is revoked"):
        await keys.rotate(key(2).prefix, proof(4), grace_s=3600, expires=None)
    with pytest.raises(NoSuchKey):
        await keys.rotate("nz_00000000", proof(4), grace_s=3600, expires=None)
    assert again.new.account == "k1"


async def test_a_limit_is_of_the_account(keys):
    """Both keys are counted together, so both have it."""
    await keys.rotate(KEY.prefix, proof(2), grace_s=3600, expires=None)

    await keys.set_policy(key(2).prefix, rpm=7)

    assert [one.policy.rpm for one in await keys.of_account("k1")] == [7, 7]


async def test_a_long_name_is_cut_for_its_mark(keys):
    """A name has 64 characters at most."""
    await keys.update(KEY.prefix, name="n" * 64)

    old = (await keys.rotate(KEY.prefix, proof(2), grace_s=9, expires=None)).old

    assert old.name == "n" * 50 + f" ({KEY.prefix})"
    assert len(old.name) == 64


# ── updates ──────────────────────────────────────────────────────────────────────────────


async def test_an_update_changes_what_is_given_and_raises_the_revision(keys):
    """Running gateways poll it."""
    seen = [await keys.revision()]
    for changes in (
        {"name": "other"},
        {"expires_at": 5e9},
        {"allow_ip": networks_of("::1")},
        {"name": "other"},
    ):
        await keys.update(KEY.prefix, **changes)
        seen.append(await keys.revision())

    assert [after > before for before, after in itertools.pairwise(seen)] == [
        True,
        True,
        True,
        False,
    ]
    assert await keys.key_by_prefix(KEY.prefix) == evolve(
        KEY, name="other", expires_at=5e9, allow_ip=networks_of("::1")
    )


async def test_a_name_that_another_key_has_is_not_taken_over(keys):
    """Its own, in other case, is."""
    await keys.add(key(2))

    with pytest.raises(KeyNameTaken):
        await keys.update(KEY.prefix, name="KEY 2")
    _, after = await keys.update(KEY.prefix, name="KEY 1")

    assert after.name == "KEY 1"


# ── tenants ──────────────────────────────────────────────────────────────────────────────


async def test_a_suspended_tenant_shows_at_its_keys(tenants, keys):
    """In the one read that says who is asking; resuming leaves no trace of it there."""
    suspended = await tenants.suspend("ACME")
    read = await keys.key_by_prefix(KEY.prefix)
    resumed = await tenants.resume("acme")

    assert suspended.suspended_at is not None
    assert read.status(suspended.suspended_at) is KeyStatus.SUSPENDED
    assert read.tenant == suspended
    assert (resumed, await keys.key_by_prefix(KEY.prefix)) == (ACME, KEY)


async def test_suspending_twice_keeps_the_first_time(tenants, actions):
    """Nothing changes, so nothing is noted."""
    once, twice = await tenants.suspend("acme"), await tenants.suspend("acme")

    assert once == twice
    assert [name for name, *_ in await told(actions)] == ["create_tenant", "suspend_tenant"]


async def test_a_deleted_tenant_is_gone_with_its_keys(tenants, keys):
    """Its name is free for another one, which is not the same."""
    before = await keys.revision()
    deleted, prefixes = await tenants.delete("acme")

    assert (deleted, prefixes) == (ACME, [KEY.prefix])
    assert await keys.key_by_prefix(KEY.prefix) is None
    assert await keys.revision() > before
    with pytest.raises(NoSuchTenant):
        await tenants.delete("acme")
    with pytest.raises(NoSuchTenant):
        await keys.add(key(2))
    await tenants.add(Tenant("t9", "acme", 1.0))


# ── what is noted ────────────────────────────────────────────────────────────────────────


async def test_every_change_is_noted_with_what_was_and_what_is(tenants, keys, actions):
    """Who, when, what; by the clock of the database; and no hash of a key."""
    before = (await keys.pulse()).now
    await keys.set_policy(KEY.prefix, rpm=60)
    await keys.set_policy(KEY.prefix, rpm=60)
    await keys.update(KEY.prefix, expires_at=4e9, allow_ip=networks_of("10.0.0.0/8"))
    await keys.rotate(KEY.prefix, proof(2), grace_s=0, expires=None)
    await keys.revoke(key(2).prefix, 86_400.0)
    await tenants.set_policy("acme", daily_tokens=5)
    await tenants.set_time_zone("acme", "Asia/Tokyo")
    await tenants.suspend("acme")
    await tenants.resume("acme")
    await tenants.delete("acme")

    found = await actions.latest(since=0, limit=100)
    retired = f"key 1 ({KEY.prefix})"
    made = await told(actions)
    # Of a new tenant all that it was given is told, its defaults included: not all are of interest here.
    made[0] = (*made[0][:2], {name: made[0][2][name] for name in ("name", "time_zone")})
    suspended = made[-3][2].pop("suspended_at")
    revoked = made[4][2].pop("revoked_at")
    assert suspended
    assert revoked
    assert made == [
        ("create_tenant", None, {"name": "acme", "time_zone": "UTC"}),
        ("create_key", KEY.prefix, {"name": "key 1"}),
        ("change_key", KEY.prefix, {"rpm": 60}),
        ("update_key", KEY.prefix, {"expires_at": "2096-10-02T07:06:40Z", "allow_ip": ["10.0.0.0/8"]}),
        ("rotate_key", KEY.prefix, {"name": retired}),
        ("rotate_key", key(2).prefix, {"successor_of": KEY.prefix}),
        ("revoke_key", key(2).prefix, {"revoked_at": "1970-01-02T00:00:00Z"}),
        ("change_tenant", None, {"daily_tokens": 5}),
        ("change_tenant", None, {"time_zone": "Asia/Tokyo"}),
        ("suspend_tenant", None, {}),
        ("resume_tenant", None, {"suspended_at": None}),
        ("delete_tenant", None, {"keys": None}),
    ]
    assert [one.changes for one in found][-1] == {
        "keys": {"before": [KEY.prefix, key(2).prefix], "after": None}
    }
    assert found[2].changes == {"rpm": {"before": None, "after": 60}}
    assert before - 60 <= found[2].at <= found[-1].at
    assert sorted(one.id for one in found) == [one.id for one in found]
    assert "argon2" not in repr(found)


async def test_what_could_not_be_changed_is_not_noted(tenants, keys, actions):
    """Change and note are one transaction."""
    before = await told(actions)

    with pytest.raises(Unstorable):
        await keys.set_policy(KEY.prefix, rpm=-1)

    assert await told(actions) == before


async def test_two_changes_at_once_are_both_noted(tenants, actions):
    """Neither of them has seen a state that never was."""
    await asyncio.gather(tenants.set_policy("acme", rpm=1), tenants.set_policy("acme", tpm=2))

    changes = [change for name, _, change in await told(actions) if name == "change_tenant"]
    assert sorted(changes, key=repr) == [{"rpm": 1}, {"tpm": 2}]


async def test_actions_are_found_by_tenant_key_and_time(tenants, keys, actions):
    """The last so many, the oldest of them first."""
    await tenants.add(Tenant("t2", "other", 1.0))
    found = await actions.latest(since=0, limit=100)

    assert [one.tenant for one in await actions.latest(since=0, limit=9, tenant_id="t2")] == ["other"]
    assert [one.action for one in await actions.latest(since=0, limit=9, key_prefix=KEY.prefix)] == [
        "create_key"
    ]
    assert await actions.latest(since=0, limit=2) == found[-2:]
    assert await actions.latest(since=found[-1].at + 1, limit=9) == []


@pytest.mark.parametrize("statement", ["UPDATE admin_actions SET os_user = 'x'", "DELETE FROM admin_actions"])
async def test_what_was_noted_is_never_altered(tenants, actions, database, statement):
    """Not even by whoever may write everything else: the database refuses it."""
    before = await told(actions)

    with pytest.raises(Unstorable, match="admin actions are never"):
        async with database.transaction() as connection:
            await connection.execute(statement)

    assert await told(actions) == before


async def test_the_pulse_tells_revision_and_time(keys, database):
    """In one read: it is asked for four times a second."""
    async with database.session() as connection:
        before = await now_of(connection)
    pulse = await keys.pulse()

    assert pulse.revision == await keys.revision()
    assert before <= pulse.now + 0.01
