"""Keys in the database, and the revision that says whether what was read still holds."""

import itertools

import pytest
from attrs import evolve, fields

from gateway.accounting import Policy
from gateway.errors import Unstorable
from gateway.model import ModelPolicy, Tenant
from gateway.storage.keys import Keys, Revocation
from gateway.storage.refusals import KeyNameTaken, NoSuchKey
from gateway.storage.tenants import Tenants
from tests.storage.samples import ACME, key

OTHER = Tenant(id="t2", name="other", created_at=1.0)


@pytest.fixture
async def keys(database):
    for tenant in (ACME, OTHER):
        await Tenants(database).add(tenant)
    return Keys(database)


async def test_a_key_is_found_by_its_prefix_as_it_was_kept(keys):
    """All of it, with its tenant: one read says who is asking."""
    kept = key(1, expires_at=9000.5)
    await keys.add(kept)

    assert await keys.key_by_prefix(kept.prefix) == kept
    assert await keys.key_by_prefix("nz_00000000") is None
    assert await keys.key_by_prefix("nz_%") is None


async def test_keys_are_listed_by_tenant_the_oldest_first(keys):
    """All, or those of one tenant."""
    late, early = key(1, created_at=20.0), key(2, created_at=10.0)
    others = key(3, tenant=OTHER)
    for one in (others, late, early):
        await keys.add(one)

    assert await keys.all() == [early, late, others]
    assert await keys.all(OTHER) == [others]


async def test_a_name_is_taken_within_its_tenant_only(keys):
    """Whatever the case, and also by a key that is revoked: the audit log names keys."""
    await keys.add(key(1, name="Prod"))
    await keys.revoke(key(1).prefix, now=5.0)
    await keys.add(key(2, name="prod", tenant=OTHER))

    with pytest.raises(KeyNameTaken, match="The tenant 'acme' has, or had, a key 'PROD' already"):
        await keys.add(key(3, name="PROD"))


async def test_two_keys_never_share_a_prefix(keys):
    """A collision would let one key hide another; it is 1 in 2 × 10^14, and an error."""
    await keys.add(key(1))

    with pytest.raises(Unstorable):
        await keys.add(evolve(key(2), prefix=key(1).prefix))


async def test_revoking_is_for_good_and_can_be_repeated(keys):
    """The second time says that it was revoked before, and keeps the first time."""
    await keys.add(key(1))
    revoked = evolve(key(1), revoked_at=7.5)

    assert await keys.revoke(key(1).prefix, now=7.5) == Revocation(revoked, already=False)
    assert await keys.revoke(key(1).prefix, now=9.0) == Revocation(revoked, already=True)
    assert await keys.key_by_prefix(key(1).prefix) == revoked


async def test_an_unknown_prefix_is_told(keys):
    """With the command that shows all."""
    with pytest.raises(NoSuchKey) as refused:
        await keys.revoke("nz_00000000", now=1.0)

    assert str(refused.value) == (
        "There is no key with the prefix 'nz_00000000'; `neuronetz-gateway list-keys` shows all."
    )


async def test_last_use_never_goes_back(keys):
    """Batches of several gateways may come in any order."""
    await keys.add(key(1))
    await keys.add(key(2))

    await keys.touch({"k1": 50.0, "k2": 60.0, "gone": 1.0})
    await keys.touch({"k1": 40.0, "k2": 70.0})

    assert [one.last_used_at for one in await keys.all()] == [50.0, 70.0]


async def test_the_revision_grows_with_every_change_but_last_use(keys, database):
    """It is what running gateways poll: changes must show, and use must not."""
    seen = [await keys.revision()]

    async def now() -> None:
        seen.append(await keys.revision())

    await keys.add(key(1))
    await now()
    await keys.touch({"k1": 50.0})
    await now()
    await keys.revoke(key(1).prefix, now=7.5)
    await now()
    await keys.revoke(key(1).prefix, now=8.5)
    await now()
    async with database.transaction() as connection:
        await connection.execute("UPDATE tenants SET name = 'renamed' WHERE id = 't2'")
    await now()
    async with database.transaction() as connection:
        await connection.execute("UPDATE keys SET last_used_at = 99, expires_at = 100 WHERE id = 'k1'")
    await now()
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM keys")
        await connection.execute("DELETE FROM tenants")
    await now()

    steps = [later - earlier for earlier, later in itertools.pairwise(seen)]
    assert steps == [1, 0, 1, 0, 1, 1, 3]


async def test_neither_hash_shows_in_the_repr(keys):
    """What is logged by accident holds nothing to attack."""
    shown = repr(key(1, argon2="$argon2id$hash"))

    assert "argon2" not in shown
    assert "mac" not in shown


async def test_a_policy_is_read_with_its_key_and_its_tenant(keys, database):
    """Both in the one read that says who is asking; each field in its place."""
    policies = Policy(1, 2, 3, 4, 5, 6), Policy(7, 8, 9, 10, 11, 12)
    limited = Tenant("t3", "limited", 1.0, policies[0], "Europe/Berlin")
    await Tenants(database).add(limited)
    kept = key(1, tenant=limited, policy=policies[1])
    await keys.add(kept)

    assert await keys.key_by_prefix(kept.prefix) == kept
    assert await keys.all(limited) == [kept]


async def test_a_policy_is_changed_field_by_field(keys):
    """What is not named stays; None means that the key inherits again."""
    await keys.add(key(1, policy=Policy(rpm=30, tpm=100)))

    changed = await keys.set_policy(key(1).prefix, rpm=None, monthly_tokens=0)

    assert changed == key(1, policy=Policy(tpm=100, monthly_tokens=0))
    assert await keys.key_by_prefix(key(1).prefix) == changed
    with pytest.raises(NoSuchKey):
        await keys.set_policy("nz_00000000", rpm=1)


async def test_what_a_key_may_do_with_models_is_read_with_it(keys, database):
    """Of the key and of its tenant, in the same read; nothing is an empty list."""
    allowed = ModelPolicy(("llama3*", "qwen3:8b"), 4096, 100), ModelPolicy(("a:b",), 1, 2)
    tenant = Tenant("t3", "modest", 1.0, models=allowed[0], allow_cloud=True)
    await Tenants(database).add(tenant)
    kept = key(1, tenant=tenant, models=allowed[1])
    await keys.add(kept)

    assert await keys.key_by_prefix(kept.prefix) == kept
    assert await Tenants(database).by_name("modest") == tenant


async def test_what_a_key_may_do_with_models_is_changed_field_by_field(keys, database):
    """What is not named stays; running gateways see every change, and only changes."""
    await keys.add(key(1))
    before = await keys.revision()

    await keys.set_models(key(1).prefix, models=("a:b",), max_num_ctx=4096)
    changed = await keys.set_models(key(1).prefix, models=None, max_output_tokens=9)
    await keys.set_models(key(1).prefix, max_output_tokens=9)

    assert changed == key(1, models=ModelPolicy(None, 4096, 9))
    assert await keys.key_by_prefix(key(1).prefix) == changed
    assert await keys.revision() == before + 2
    with pytest.raises(NoSuchKey):
        await keys.set_models("nz_00000000", models=None)


@pytest.mark.parametrize("name", [field.name for field in fields(Policy)])
async def test_every_change_of_a_policy_shows_in_the_revision(keys, database, name):
    """Running gateways poll it: a new limit holds within a second."""
    await keys.add(key(1))
    before = await keys.revision()

    await keys.set_policy(key(1).prefix, **{name: 5})
    await keys.set_policy(key(1).prefix, **{name: 5})
    await Tenants(database).set_policy("acme", **{name: 5})

    assert await keys.revision() == before + 2
