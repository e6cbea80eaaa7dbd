"""Keys by their look: shape, checksum, prefix, and the keyed hash."""

import hashlib
import hmac
import random
import re
import zlib
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.rules.keys import (
    KEY_REGEX,
    is_prefix,
    is_well_formed,
    mac_of,
    matches,
    new_token,
    prefix_of,
)
from gateway.rules.mac import Mac

SECRET = Mac(b"secret")
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
TOKEN = new_token(random.Random(7).randrange)


def test_a_new_key_is_scheme_random_characters_and_the_crc32_of_them():
    """Each random number becomes one character, in the order of digits, upper case, lower case."""
    numbers = cycle(range(62))

    token = new_token(lambda below: next(numbers))

    assert token[:45] == "nz_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"
    assert int_of(token[45:]) == zlib.crc32(token[:45].encode())


def test_every_character_is_drawn_alike():
    """62 does not divide 256, so bytes modulo 62 would favour some: numbers below 62 are asked for."""
    asked: list[int] = []

    def first(below: int) -> int:
        asked.append(below)
        return 0

    new_token(first)

    assert asked == [62] * 42


def test_a_small_checksum_is_padded_to_six_digits():
    """A key has the same length whatever its CRC32 is: the smallest of many is below 62 to the fifth."""
    tokens = [new_token(random.Random(seed).randrange) for seed in range(200)]

    assert any(token[45] == "0" for token in tokens)
    assert all(re.match(KEY_REGEX, token) and is_well_formed(token) for token in tokens)


def test_every_single_mistyped_character_is_seen():
    """CRC32 sees every change of one character, wherever it is."""
    mistyped = [
        TOKEN[:place] + other + TOKEN[place + 1 :]
        for place in range(3, 51)
        for other in ALPHABET
        if other != TOKEN[place]
    ]

    assert [token for token in mistyped if is_well_formed(token)] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nz_",
        TOKEN[:-1],
        TOKEN + "0",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN.upper(),
        "sk_" + TOKEN[3:],
        TOKEN[:20] + "é" + TOKEN[21:],
        TOKEN[:20] + "\ud800" + TOKEN[21:],
        TOKEN[:20] + "\u0661" + TOKEN[21:],  # a digit, but not one of ours
        TOKEN[:20] + "\0" + TOKEN[21:],
        "nz_' OR '1'='1",
        "nz_%%%%",
    ],
    ids=ascii,
)
def test_what_is_not_a_key_is_not_well_formed(text):
    """Shape first: nothing else is ever computed on such text."""
    assert not is_well_formed(text)


@given(st.text(st.characters(exclude_categories=[]), max_size=60))
def test_no_text_makes_the_checks_raise(text):
    """A key comes from outside, so any text may come, lone surrogates included."""
    is_well_formed(text)
    is_prefix(text)
    assert len(mac_of(SECRET, text)) == 32


def test_the_prefix_is_the_public_part():
    """Eight characters after the scheme, as list-keys shows them."""
    assert prefix_of("nz_abc12345" + "x" * 40) == "nz_abc12345"
    assert is_prefix("nz_abc12345")
    assert not any(is_prefix(text) for text in (TOKEN, "nz_abc1234", "nz_abc12345\n", "nz_abc1234%"))


def test_the_mac_is_hmac_sha256_of_the_whole_key():
    """As anybody would compute it, so that it can be checked from outside."""
    assert mac_of(SECRET, TOKEN) == hmac.new(b"secret", TOKEN.encode(), hashlib.sha256).digest()


def test_only_the_same_mac_matches():
    """A key that does not exist matches nothing, not even the bytes that it is compared with."""
    mac = mac_of(SECRET, TOKEN)

    assert matches(mac, mac)
    assert not matches(mac_of(Mac(b"other"), TOKEN), mac)
    assert not matches(None, mac)
    assert not matches(None, bytes(32))


def int_of(digits: str) -> int:
    value = 0
    for digit in digits:
        value = value * 62 + ALPHABET.index(digit)
    return value
