"""The anatomy of an API key, and its cheap checks.

`nz_` + 8 base62 characters (with `nz_`: the public *prefix*) + 34 base62 characters of secret + 6 base62
digits: the CRC32 of all before them. Lengths are fixed, so no separator is needed and a double click
selects it all.

The checksum drops typos without a look-up; whoever wants to can compute it, so it is no secret. Only the
keyed hash (`mac_of`) says whether a key is one of ours.
"""

import hmac
import re
import string
from collections.abc import Callable
from typing import Final
from zlib import crc32

from gateway.rules.mac import Mac

# For secret scanners and whoever else must recognise a key.
KEY_REGEX: Final = r"^nz_[0-9A-Za-z]{48}$"
PREFIX_REGEX: Final = r"^nz_[0-9A-Za-z]{8}$"

SCHEME: Final = "nz_"
PREFIX_CHARACTERS: Final = len(SCHEME) + 8
KEY_CHARACTERS: Final = len(SCHEME) + 48
MAC_BYTES: Final = 32

_BASE62: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_CHARACTERS: Final = 8 + 34
_CHECKED_CHARACTERS: Final = len(SCHEME) + _RANDOM_CHARACTERS
# Two base62 digits at a time: three look-ups for a checksum instead of six.
_PAIRS: Final = tuple(high + low for high in _BASE62 for low in _BASE62)
# Every request comes by: \Z instead of $, which would let a line end pass.
_has_key_shape = re.compile(KEY_REGEX.replace("$", r"\Z"), re.ASCII).match
_has_prefix_shape = re.compile(PREFIX_REGEX.replace("$", r"\Z"), re.ASCII).match
# What an unknown prefix is compared with, so that unknown and wrong keys take the same path.
_NOBODYS_MAC: Final = bytes(MAC_BYTES)


def new_token(random_below: Callable[[int], int]) -> str:
    """A new key. `random_below(n)` gives a number in [0, n) without bias, as `secrets.randbelow` does."""
    checked = SCHEME + "".join(_BASE62[random_below(len(_BASE62))] for _ in range(_RANDOM_CHARACTERS))
    return checked + _checksum(checked)


def is_well_formed(token: str) -> bool:
    """Shape and checksum hold. Says nothing about whether the key exists; raises on no text whatever."""
    if _has_key_shape(token) is None:
        return False
    return token[_CHECKED_CHARACTERS:] == _checksum(token[:_CHECKED_CHARACTERS])


def is_prefix(text: str) -> bool:
    """The text has the shape of a public prefix, such as nz_abc12345."""
    return _has_prefix_shape(text) is not None


def prefix_of(token: str) -> str:
    """The public part of a key: may be shown, logged and looked up."""
    return token[:PREFIX_CHARACTERS]


def mac_of(secret: Mac, token: str) -> bytes:
    """HMAC-SHA256 of the whole key: 32 bytes. Takes any text, also what is no key."""
    return secret.of(token.encode("utf-8", "surrogatepass"))


def matches(stored_mac: bytes | None, presented_mac: bytes) -> bool:
    """Compare in constant time; `stored_mac` is None for an unknown prefix, which takes just as long."""
    equal = hmac.compare_digest(_NOBODYS_MAC if stored_mac is None else stored_mac, presented_mac)
    return equal and stored_mac is not None


def _checksum(checked: str) -> str:
    """CRC32 as six base62 digits, the most significant first."""
    rest, low = divmod(crc32(checked.encode("ascii")), len(_PAIRS))
    high, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[high] + _PAIRS[middle] + _PAIRS[low]
