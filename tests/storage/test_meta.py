"""Facts about the database as a whole."""

from gateway.storage.keys import Keys
from gateway.storage.meta import Meta
from gateway.storage.tenants import Tenants
from tests.storage.samples import ACME, key


async def test_a_value_is_pinned_once_there_are_keys(database):
    """Before, the latest stands: nothing depends on it yet."""
    meta = Meta(database)
    first, second = await meta.pin_to_keys("secret", "a"), await meta.pin_to_keys("secret", "b")
    await Tenants(database).add(ACME)
    await Keys(database).add(key(1))

    assert (first, second, await meta.pin_to_keys("secret", "c")) == ("a", "b", "b")
