"""HMAC-SHA256 with the key's share computed once: the same bytes as everybody's."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rules.mac import Mac

# RFC 4231, sections 4.2, 4.3, 4.7 and 4.8: a short key, a shorter one than its hash, and two beyond a block.
VECTORS = [
    (b"\x0b" * 20, b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
    (
        b"Jefe",
        b"what do ya want for nothing?",
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ),
    (
        b"\xaa" * 131,
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ),
    (
        b"\xaa" * 131,
        b"This is a test using a larger than block-size key and a larger than block-size data. The key "
        b"needs to be hashed before being used by the HMAC algorithm.",
        "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
    ),
]


@pytest.mark.parametrize(("key", "message", "mac"), VECTORS)
def test_it_is_the_one_of_the_standard(key: bytes, message: bytes, mac: str):
    assert Mac(key).of(message).hex() == mac


@given(st.binary(max_size=200), st.lists(st.binary(max_size=300), max_size=3))
def test_it_is_that_of_the_library_for_every_key_however_often(key: bytes, messages: list[bytes]):
    mac = Mac(key)

    assert [mac.of(message) for message in messages] == [
        hmac.digest(key, message, "sha256") for message in messages
    ]
