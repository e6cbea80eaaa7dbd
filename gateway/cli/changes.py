"""Changes of tenants and keys: once the database has one, Redis is told.

A gateway that reaches the database sees a change within a second. One that does not goes on by what it
remembers, unless the counters that it asks know better.
"""

import click

from gateway.cli.policies import Holder, tenant_of
from gateway.cli.stores import Stores, shared_counters
from gateway.errors import StoreUnavailable
from gateway.storage.refusals import RedisUnusable, Refused


async def tell_gateways(stores: Stores, changed: Holder) -> Refused | None:
    """Have nothing taken any more by what was read of it before; the reason, if Redis could not be told."""
    if stores.config.redis is None:
        return None
    try:
        async with shared_counters(stores.config.redis) as counters:
            await counters.raise_epoch(tenant_of(changed).id, await stores.keys.revision())
    except RedisUnusable as error:
        return error
    except StoreUnavailable as error:
        return Refused(str(error))
    return None


def fail_untold(reason: Refused | None) -> None:
    """Raise ClickException when Redis could not be told. Call it when the change has been shown."""
    if reason is not None:
        raise click.ClickException(
            "The change stands in the database, and gateways that reach it apply it within one second; but "
            "Redis could not be told, so one that does not reach it may go on as before for 15 minutes. Run "
            f"this again when Redis answers. {reason}"
        )
