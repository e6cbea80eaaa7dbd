"""The time zone of a principal, for whoever plans or shows its budgets."""

from datetime import tzinfo

from loguru import logger

from gateway.errors import LimitsUnavailable
from gateway.model import Principal
from gateway.rules.windows import zone_of


def zone_for(principal: Principal) -> tzinfo:
    """Where its days and months begin. Raises LimitsUnavailable, and logs why, where this machine can't tell.

    Zones are checked when they are set, but by the machine that they are set on: an older one may lack it.
    """
    try:
        return zone_of(principal.time_zone)
    except ValueError as error:
        logger.bind(tenant=principal.tenant).error("budgets can't be checked: {}", error)
        raise LimitsUnavailable from None
