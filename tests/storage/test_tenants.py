"""Tenants in the database."""

import asyncio

import pytest
from attrs import evolve

from gateway.accounting import MAX_TOKENS, Policy
from gateway.errors import Unstorable
from gateway.model import ModelPolicy, Tenant
from gateway.storage.refusals import NoSuchTenant, TenantNameTaken
from gateway.storage.tenants import Tenants
from tests.storage.samples import ACME

ZEBRA = Tenant(id="t2", name="Zebra", created_at=5.0)


@pytest.fixture
async def tenants(database):
    tenants = Tenants(database)
    await tenants.add(ZEBRA)
    await tenants.add(ACME)
    return tenants


async def test_tenants_are_listed_by_name(tenants):
    """As they were kept, fractions of a second included."""
    assert await tenants.all() == [ACME, ZEBRA]


async def test_what_a_tenant_may_do_with_models_is_changed_field_by_field(tenants):
    """What is not named stays, the cloud included."""
    await tenants.set_models("acme", models=("a:b", "c*"), allow_cloud=True)

    changed = await tenants.set_models("acme", max_num_ctx=4096)

    assert changed == evolve(ACME, models=ModelPolicy(("a:b", "c*"), 4096), allow_cloud=True)
    assert await tenants.by_name("acme") == changed
    with pytest.raises(NoSuchTenant):
        await tenants.set_models("nobody", models=None)


async def test_tenants_are_found_by_id(tenants):
    """Those that exist."""
    assert await tenants.by_ids(["t2", "gone"]) == [ZEBRA]
    assert await tenants.by_ids([]) == []


async def test_a_tenant_is_found_in_whatever_case(tenants):
    """Nobody remembers how a name was written."""
    assert await tenants.by_name("zEBRA") == ZEBRA


async def test_a_name_that_differs_by_case_only_is_taken(tenants):
    """Two tenants called acme and Acme would be mixed up."""
    with pytest.raises(TenantNameTaken, match="There is a tenant 'acme' already; choose another name"):
        await tenants.add(Tenant(id="t3", name="ACME", created_at=1.0))

    assert await tenants.all() == [ACME, ZEBRA]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("zebr", "There is no tenant 'zebr'; did you mean 'Zebra'?"),
        ("qqqqqq", "There is no tenant 'qqqqqq'; `neuronetz-gateway list-tenants` shows all."),
    ],
)
async def test_an_unknown_name_is_told_with_the_nearest(tenants, asked, sentence):
    """Otherwise with the command that shows all."""
    with pytest.raises(NoSuchTenant) as refused:
        await tenants.by_name(asked)

    assert str(refused.value) == sentence


async def test_a_policy_is_kept_and_changed_field_by_field(tenants):
    """What is not named stays; None takes a bound away; 0 is a bound."""
    limited = Tenant("t3", "limited", 1.0, Policy(rpm=30, total_tokens=MAX_TOKENS), "Europe/Berlin")
    await tenants.add(limited)

    changed = await tenants.set_policy("LIMITED", rpm=None, concurrent=0)
    moved = await tenants.set_time_zone("limited", "UTC")

    assert changed == evolve(limited, policy=Policy(concurrent=0, total_tokens=MAX_TOKENS))
    assert moved == evolve(changed, time_zone="UTC")
    assert await tenants.by_name("limited") == moved
    assert await tenants.by_name("acme") == ACME


async def test_two_changes_at_once_are_both_made(tenants):
    """One command sets a limit while another sets a budget: neither undoes the other."""
    await asyncio.gather(
        tenants.set_policy("acme", rpm=30),
        tenants.set_policy("acme", daily_tokens=1000),
        tenants.set_time_zone("acme", "Asia/Tokyo"),
    )

    assert await tenants.by_name("acme") == evolve(
        ACME, policy=Policy(rpm=30, daily_tokens=1000), time_zone="Asia/Tokyo"
    )


async def test_a_policy_of_nobody_and_a_field_that_is_none_are_errors(tenants):
    """The first is the operator's mistake, the second ours."""
    with pytest.raises(NoSuchTenant, match="did you mean 'acme'"):
        await tenants.set_policy("acm", rpm=1)
    with pytest.raises(TypeError, match="rpn"):
        await tenants.set_policy("acme", rpn=1)


@pytest.mark.parametrize("number", [-1, MAX_TOKENS + 1])
async def test_numbers_that_nobody_can_count_to_are_not_kept(tenants, number):
    """The last line of defence: commands refuse them with a sentence."""
    with pytest.raises(Unstorable, match=r"(?i)check constraint"):
        await tenants.set_policy("acme", total_tokens=number)

    assert await tenants.by_name("acme") == ACME
