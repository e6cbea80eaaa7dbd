"""Tenants in the database."""

import pytest

from gateway.model import Tenant
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
