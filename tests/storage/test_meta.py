"""Facts about the database as a whole."""

from gateway.storage.audit import AuditLog
from gateway.storage.keys import Keys
from gateway.storage.meta import Meta
from gateway.storage.tenants import Tenants
from tests.storage.samples import ACME, CHAIN, audit_row, key


async def test_a_value_is_pinned_once_there_are_keys(database):
    """Before, the latest stands: nothing depends on it yet."""
    meta = Meta(database)
    first, second = await meta.pin("secret", "a"), await meta.pin("secret", "b")
    await Tenants(database).add(ACME)
    await Keys(database).add(key(1))

    assert (first, second, await meta.pin("secret", "c")) == ("a", "b", "b")


async def test_a_value_is_pinned_once_a_row_of_the_audit_log_is_sealed(database):
    """Seals are made under it as keys are: those that are there could not be proven any more."""
    meta = Meta(database)
    await meta.pin("secret", "a")
    await AuditLog(database, CHAIN).write([audit_row(1)])

    assert await meta.pin("secret", "b") == "a"
