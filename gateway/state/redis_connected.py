"""From a REDIS_URL to a client of coredis that is connected."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, Final

from coredis import Redis, RedisCluster, Sentinel
from coredis.connection import TCPLocation
from coredis.retry import NoRetryPolicy

from gateway.redis_address import Kind, RedisAddress

# It sends many commands over one connection at the same time.
_MAX_CONNECTIONS: Final = 16

Client = Redis[bytes] | RedisCluster[bytes]


@contextlib.asynccontextmanager
async def connected(address: RedisAddress, attempt: int, io_timeout_s: float) -> AsyncIterator[Client]:
    """A client that is entered. Each attempt begins with another host: one may accept, and say nothing."""
    first = attempt % len(address.hosts)
    hosts = [TCPLocation(*host) for host in (*address.hosts[first:], *address.hosts[:first])]
    server = _server(address, io_timeout_s)
    match address.kind:
        case Kind.SINGLE:
            async with Redis(hosts[0].host, hosts[0].port, db=address.db, **server) as single:
                yield single
        case Kind.SENTINEL:
            async with Sentinel(
                hosts, sentinel_kwargs=_sentinel(address, io_timeout_s), retry_policy=NoRetryPolicy()
            ) as guide:
                connection = _connection(address, io_timeout_s)
                kept = guide.primary_for(address.service or "", db=address.db, **connection)
                async with kept as primary:
                    yield primary
        case Kind.CLUSTER:
            cluster: RedisCluster[bytes] = RedisCluster(
                startup_nodes=hosts, skip_full_coverage_check=True, decode_responses=False, **server
            )
            async with cluster:
                yield cluster


def _server(address: RedisAddress, io_timeout_s: float) -> dict[str, Any]:
    return {
        # A command that may have been counted is never sent again.
        "retry_policy": NoRetryPolicy(),
        "verify_version": False,
        "pool_timeout": io_timeout_s,
        "max_connections": _MAX_CONNECTIONS,
        "ssl": address.uses_tls,
        **_connection(address, io_timeout_s),
    }


def _connection(address: RedisAddress, io_timeout_s: float) -> dict[str, Any]:
    return {
        "username": address.username,
        "password": address.password,
        "stream_timeout": io_timeout_s,
        "connect_timeout": io_timeout_s,
        "ssl_context": tls_context(address),
    }


def _sentinel(address: RedisAddress, io_timeout_s: float) -> dict[str, Any]:
    return {**_connection(address, io_timeout_s), "username": None, "password": address.sentinel_password}


def tls_context(address: RedisAddress) -> ssl.SSLContext | None:
    """Verifies the chain and the host name; coredis by itself would verify the chain alone."""
    return ssl.create_default_context(cafile=address.ca) if address.uses_tls else None
