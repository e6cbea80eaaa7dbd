"""DATABASE_URL for Postgres: read strictly, and never repeated when it can't be."""

import pytest

from gateway.postgres_address import PostgresAddress, SslMode, postgres_address

ONE = (("db", 5432),)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("postgresql://gw:pw@db/gateway", PostgresAddress(ONE, "gateway", "gw", "pw")),
        ("postgres://gw@db:7000/gateway", PostgresAddress((("db", 7000),), "gateway", "gw")),
        (
            "postgresql://g%40w:p%2F%3A%23%3Fss%25@[::1]:7000/my%20db",
            PostgresAddress((("::1", 7000),), "my db", "g@w", "p/:#?ss%"),
        ),
        (
            "postgresql://gw:p:w@a,b:7001,[fe80::1]/gateway",
            PostgresAddress((("a", 5432), ("b", 7001), ("fe80::1", 5432)), "gateway", "gw", "p:w"),
        ),
        (
            "postgresql://gw@%2Frun%2Fpostgresql/gateway",
            PostgresAddress((("/run/postgresql", 5432),), "gateway", "gw"),
        ),
        (
            "postgresql://gw@db/gateway?sslmode=verify-full&sslrootcert=/etc/my%20ca.pem"
            "&application_name=blue&pgbouncer=true",
            PostgresAddress(
                ONE,
                "gateway",
                "gw",
                sslmode=SslMode.VERIFY_FULL,
                sslrootcert="/etc/my ca.pem",
                application_name="blue",
                is_pooled=True,
            ),
        ),
    ],
)
def test_each_form_is_read(url: str, address: PostgresAddress):
    """As docs/OPERATIONS.md names them."""
    assert postgres_address(url) == address


@pytest.mark.parametrize(
    ("rest", "word"),
    [
        ("@", "a user, a host and a database"),
        ("@db", "a user, a host and a database"),
        ("@db/", "a user, a host and a database"),
        ("@db/a/b", "a user, a host and a database"),
        ("@db/a#b", "%23"),
        ("@db:port/gateway", "host:port"),
        ("@db:0/gateway", "host:port"),
        ("@db:99999/gateway", "host:port"),
        ("@a,,b/gateway", "host:port"),
        ("@::1/gateway", "IPv6"),
        ("@[db/gateway", "host:port"),
        ("@db/gate%00way", "percent-encoded"),
        ("@db/gate%ffway", "percent-encoded"),
        ("@db/gateway?ssl=true", "the options .* only, not 'ssl'"),
        ("@db/gateway?sslmode=allow", "disable, prefer, require, verify-ca, verify-full as sslmode"),
        ("@db/gateway?sslmode=require&sslmode=disable", "each option once"),
        ("@db/gateway?sslmode=verify-full", "sslrootcert=FILE"),
        ("@db/gateway?sslrootcert=/ca.pem", "sslrootcert with sslmode"),
        ("@db/gateway?sslmode=verify-ca&sslrootcert=system", "verify-full only"),
        ("@db/gateway?pgbouncer=1", "true or false"),
        ("@db/x?hunter2@db/gateway", "the options [a-z_, ]* only$"),
    ],
)
def test_what_cannot_be_read_is_refused_without_repeating_it(rest: str, word: str):
    """The password is in it."""
    with pytest.raises(ValueError, match=word) as refused:
        postgres_address(f"postgresql://gw:hunter2{rest}")

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_url_needs_a_user():
    """Neither driver's guess, which is the name of the account that runs the process."""
    for url in ("postgresql://db/gateway", "postgresql://:pw@db/gateway", "postgresql:///gateway"):
        with pytest.raises(ValueError, match="a user"):
            postgres_address(url)


def test_a_password_is_not_in_what_is_printed():
    """In a log or a traceback; where it is, is."""
    address = postgres_address("postgresql://gw:hunter2@a,[::1]:7/gateway")

    assert "hunter2" not in repr(address)
    assert str(address) == "a:5432,[::1]:7/gateway"
