"""TLS to Postgres: both drivers understand the options alike, and neither promises more than it keeps."""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from gateway.storage.engines import database_at
from gateway.storage.migrations import pending
from gateway.storage.refusals import DatabaseUnusable
from tests.postgres_server import PostgresServer
from tests.tls_front import TlsFront, tls_front


async def by_psycopg(url: str) -> None:
    pending(url)


async def by_asyncpg(url: str) -> None:
    async with database_at(url):
        pass


EACH_DRIVER = pytest.mark.parametrize("connect", [by_psycopg, by_asyncpg])
Connect = Callable[[str], Awaitable[None]]


@pytest.fixture
def front(postgres_server: PostgresServer, certificates: dict[str, Path]) -> Iterator[TlsFront]:
    """Its certificate is for localhost, not for 127.0.0.1."""
    certificate = certificates["server"]
    with tls_front(postgres_server.port, certificate, certificate.with_suffix(".key")) as front:
        yield front


@pytest.fixture
def tls_url(front: TlsFront, postgres_server: PostgresServer, postgres_url: str) -> str:
    return postgres_url.replace(f":{postgres_server.port}", f":{front.port}")


@EACH_DRIVER
@pytest.mark.parametrize(
    "options",
    [
        "sslmode=prefer",
        "sslmode=disable",
        "sslmode=require",
        "sslmode=require&sslrootcert={server}",
        "sslmode=verify-ca&sslrootcert={server}",
        "sslmode=verify-full&sslrootcert={server}",
    ],
)
async def test_what_was_asked_for_is_done(
    connect: Connect, tls_url: str, front: TlsFront, certificates: dict[str, Path], options: str
):
    host = "localhost" if "verify-full" in options else "127.0.0.1"
    await connect(f"{tls_url.replace('127.0.0.1', host)}?{options.format(**certificates)}")

    assert set(front.seen) == {options != "sslmode=disable"}


@EACH_DRIVER
@pytest.mark.parametrize(
    ("options", "host"),
    [
        ("sslmode=require&sslrootcert={another}", "127.0.0.1"),
        ("sslmode=verify-ca&sslrootcert={another}", "127.0.0.1"),
        ("sslmode=verify-full&sslrootcert={another}", "localhost"),
        ("sslmode=verify-full&sslrootcert={server}", "127.0.0.1"),
        ("sslmode=verify-full&sslrootcert=system", "localhost"),
    ],
)
async def test_who_is_not_who_was_meant_is_refused(
    connect: Connect, tls_url: str, certificates: dict[str, Path], options: str, host: str
):
    """In words that say what is wrong."""
    with pytest.raises(DatabaseUnusable, match=r"(?i)certificate"):
        await connect(f"{tls_url.replace('127.0.0.1', host)}?{options.format(**certificates)}")


@EACH_DRIVER
async def test_a_server_without_tls_is_used_only_where_that_was_allowed(connect: Connect, postgres_url: str):
    await connect(f"{postgres_url}?sslmode=prefer")

    for options in ("require", "verify-full&sslrootcert=system"):
        with pytest.raises(DatabaseUnusable, match="SSL"):
            await connect(f"{postgres_url}?sslmode={options}")


@EACH_DRIVER
async def test_certificates_that_are_not_there_are_told(connect: Connect, postgres_url: str):
    with pytest.raises(DatabaseUnusable, match=r"sslrootcert /nowhere/ca\.pem can't be used: No such file"):
        await connect(f"{postgres_url}?sslmode=verify-full&sslrootcert=/nowhere/ca.pem")
