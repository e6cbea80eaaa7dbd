"""All checks, one after the other: what breaks one is its finding, and the rest go on."""

from collections.abc import AsyncIterator

from gateway.config import Config
from gateway.doctor.backends import examine_backends
from gateway.doctor.files import examine_files
from gateway.doctor.findings import Finding
from gateway.doctor.road import examine_road
from gateway.doctor.stores import examine_database, examine_redis


async def examine(config: Config) -> AsyncIterator[Finding]:
    """Asks and looks; changes nothing. Takes some seconds where something does not answer."""
    async for finding in examine_database(config):
        yield finding
    async for finding in examine_redis(config):
        yield finding
    for finding in examine_files(config):
        yield finding
    async for finding in examine_backends(config):
        yield finding
    async for finding in examine_road(config):
        yield finding
