"""Connections to Postgres by asyncpg, and what `libpq` is to understand alike of an address.

Neither looks for certificates or keys in a home directory. Of several hosts, the one is used that
takes writes.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Iterator
from typing import Any, Final

import asyncpg

from gateway.postgres_address import SYSTEM, PostgresAddress, SslMode, postgres_address
from gateway.storage.refusals import DatabaseUnusable

# The server ends a session of ours that it hears nothing of, with what that has locked: after the end of the
# host or of the network between, which no packet tells. Also a transaction that a hung process holds open.
_SESSION: Final = {
    "idle_in_transaction_session_timeout": "60s",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
# What asyncpg raises when the server says no, or nothing.
DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)


def address_of(database_url: str) -> PostgresAddress:
    """Raises DatabaseUnusable for what `config` refuses too."""
    try:
        return postgres_address(database_url)
    except ValueError as error:
        raise DatabaseUnusable(f"DATABASE_URL takes {error}.") from None


class Connector:
    """Opens connections to one address. Raises DatabaseUnusable for certificates that can't be read."""

    def __init__(self, database_url: str) -> None:
        self.address = address_of(database_url)
        self._context = _context_of(self.address)

    async def connect(self, within_s: float, **settings: str) -> asyncpg.Connection:
        """A connection to whichever host is ready, each being waited for a share of `within_s`.

        `settings` are the server's, for this session; behind a pooler, which has sessions of its own, none
        are made. Raises what asyncpg raises, OSError, TimeoutError.
        """
        told: list[Exception] = []
        for host, port in self.address.hosts:
            try:
                async with asyncio.timeout(within_s / len(self.address.hosts)):
                    return await self._connect(host, port, settings)
            except DRIVER_ERRORS as error:
                told.append(error)
        # A host that answers knows more than one that does not.
        raise next((error for error in told if isinstance(error, asyncpg.PostgresError)), told[-1])

    async def _connect(self, host: str, port: int, settings: dict[str, str]) -> asyncpg.Connection:
        address = self.address
        arguments: dict[str, Any] = {
            "host": host,
            "port": port,
            "user": address.user,
            "password": address.password,
            "database": address.database,
            "target_session_attrs": wanted_of(address),
            "server_settings": {"application_name": address.application_name},
            "timeout": None,  # the caller's holds
        }
        if address.is_pooled:
            arguments["statement_cache_size"] = 0
        else:
            arguments["server_settings"] |= _SESSION | settings
        try:
            return await asyncpg.connect(**arguments, ssl=self._context or False)
        except ConnectionError as error:
            # asyncpg's own word for a server without TLS: the kernel's errors are of subclasses.
            if address.sslmode is not SslMode.PREFER or type(error) is not ConnectionError:
                raise
        return await asyncpg.connect(**arguments, ssl=False)


def wanted_of(address: PostgresAddress) -> str:
    """`target_session_attrs`: of several hosts the one that takes writes."""
    return "read-write" if len(address.hosts) > 1 else "any"


def _context_of(address: PostgresAddress) -> ssl.SSLContext | None:
    if address.sslmode is SslMode.DISABLE:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = address.sslmode is SslMode.VERIFY_FULL
    file = file_of(address)
    if file is None:
        context.verify_mode = ssl.CERT_NONE
        return context
    try:
        context.load_verify_locations(cafile=file)
    except OSError as error:
        raise DatabaseUnusable(f"The sslrootcert {file} can't be used: {error.strerror}.") from error
    return context


def file_of(address: PostgresAddress) -> str | None:
    """The certificates to trust. libpq's own `system` is where its builder's system had them."""
    if address.sslrootcert != SYSTEM:
        return address.sslrootcert
    return ssl.get_default_verify_paths().cafile or ssl.get_default_verify_paths().openssl_cafile


# What pgbouncer answers to who sets a session up, and what comes of preparing statements behind it.
_POOLER_SAYS: Final = re.compile(
    r"unsupported startup parameter|prepared statement .* (already|does not) exist"
)
_POOLED_UNTOLD: Final = " Behind a pooler such as pgbouncer, DATABASE_URL needs ?pgbouncer=true."


@contextlib.contextmanager
def errors_told(address: PostgresAddress) -> Iterator[None]:
    """Say in one sentence why the database can't be used."""
    try:
        yield
    except TimeoutError as error:
        raise DatabaseUnusable(f"The database {address} does not answer.") from error
    except DRIVER_ERRORS as error:
        raise unusable(address, error) from error


def unusable(address: PostgresAddress, error: Exception) -> DatabaseUnusable:
    reason = (getattr(error, "strerror", None) or str(error)).strip().partition("\n")[0]
    remedy = "" if address.is_pooled or not _POOLER_SAYS.search(reason) else _POOLED_UNTOLD
    return DatabaseUnusable(f"The database {address} can't be used: {reason.rstrip('.')}.{remedy}")
