"""REDIS_URL: read strictly, and never repeated when it can't be."""

import ssl

import pytest

from gateway.redis_address import Kind, RedisAddress, redis_address
from gateway.state.redis_connected import tls_context

SINGLE, SENTINEL, CLUSTER = Kind.SINGLE, Kind.SENTINEL, Kind.CLUSTER


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", RedisAddress(SINGLE, (("cache", 6379),))),
        ("redis://cache:7000/3", RedisAddress(SINGLE, (("cache", 7000),), db=3)),
        ("redis://:p%40ss@[::1]:7000", RedisAddress(SINGLE, (("::1", 7000),), password="p@ss")),
        (
            "rediss://gw:secret@cache/0?ca=/etc/ca.pem",
            RedisAddress(
                SINGLE, (("cache", 6379),), username="gw", password="secret", uses_tls=True, ca="/etc/ca.pem"
            ),
        ),
        (
            "redis+sentinel://:pw@s1,s2:7001/main/2?sentinel_password=other",
            RedisAddress(
                SENTINEL,
                (("s1", 26379), ("s2", 7001)),
                service="main",
                db=2,
                password="pw",
                sentinel_password="other",
            ),
        ),
        ("redis+cluster://n1:7001,n2:7002", RedisAddress(CLUSTER, (("n1", 7001), ("n2", 7002)))),
        ("redis+cluster://n1:7001,[::1]:7002", RedisAddress(CLUSTER, (("n1", 7001), ("::1", 7002)))),
        ("rediss+cluster://n1", RedisAddress(CLUSTER, (("n1", 6379),), uses_tls=True)),
    ],
)
def test_each_form_is_read(url: str, address: RedisAddress):
    """As README names them."""
    assert redis_address(url) == address


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://:hunter2@cache", "begins with"),
        ("redis+ring://:hunter2@cache", "begins with"),
        ("cache:6379", "begins with"),
        ("redis://:hunter2@", "host"),
        ("redis://:hunter2@cache:port", "port"),
        ("redis://:hunter2@cache:99999", "port"),
        ("redis://:hunter2@a,b", "one host"),
        ("redis+sentinel://:hunter2@s1", "name of the service"),
        ("redis://:hunter2@cache/one", "number of a database"),
        ("redis://:hunter2@cache/1/2", "number of a database"),
        ("redis+cluster://:hunter2@n1/1", "number of a database"),
        ("redis://:hunter2@cache?ssl_check_hostname=false", "only, not 'ssl_check_hostname'"),
        ("redis://:hunter2@[cache", "host:port"),
    ],
)
def test_what_cannot_be_read_is_refused_without_repeating_it(url: str, word: str):
    """The password is in it."""
    with pytest.raises(ValueError, match=word) as refused:
        redis_address(url)

    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_a_password_is_not_in_what_is_printed():
    """In a log or a traceback."""
    address = redis_address("redis+sentinel://gw:hunter2@s1/main?sentinel_password=hunter3")

    assert "hunter" not in repr(address)


def test_over_tls_chain_and_host_name_are_verified():
    """coredis by itself would take any host's certificate."""
    context = tls_context(redis_address("rediss://cache"))

    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert tls_context(redis_address("redis://cache")) is None
