"""How records lie in a file: mark, length, CRC-32, payload. Pure: bytes in, bytes out.

The law: whatever happened to a file, every record whose own bytes are whole is found. What is torn or
flipped is skipped up to the next record that is whole, and counted.
"""

import struct
from typing import Final
from zlib import crc32

from attrs import frozen

_HEADER: Final = struct.Struct("<4sII")
# Not in JSON, whose control characters are escaped; so it is rare enough to search for.
_MARK: Final = b"NZ\x1e\x02"
# A record has about 1 KB. A length beyond this was never written by us.
MAX_PAYLOAD_BYTES: Final = 1024 * 1024


@frozen
class Reading:
    """What `read` found. `used_bytes` is where to go on; a gap is a run of `lost_bytes`."""

    payloads: list[bytes]
    used_bytes: int
    gaps: int = 0
    lost_bytes: int = 0


def frame(payload: bytes) -> bytes:
    """The payload as it is written. Raises ValueError when it is longer than MAX_PAYLOAD_BYTES."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ValueError(f"a record of {len(payload)} bytes")
    return _HEADER.pack(_MARK, len(payload), crc32(payload)) + payload


def read(data: bytes, max_records: int) -> Reading:
    """The first `max_records` of a file's bytes, which go to its end.

    Zeros at the end are space that was allocated and not written: no loss.
    """
    payloads: list[bytes] = []
    at = gaps = lost_bytes = 0
    while at < len(data) and len(payloads) < max_records:
        payload = _payload_at(data, at)
        if payload is not None:
            payloads.append(payload)
            at += _HEADER.size + len(payload)
            continue
        following = _next_whole(data, at)
        lost = len(data[at:following].rstrip(b"\0"))
        if lost:
            gaps, lost_bytes = gaps + 1, lost_bytes + lost
        at = following
    return Reading(payloads, at, gaps, lost_bytes)


def _payload_at(data: bytes, at: int) -> bytes | None:
    start = at + _HEADER.size
    if start > len(data):
        return None
    mark, length, checksum = _HEADER.unpack_from(data, at)
    if mark != _MARK or length > MAX_PAYLOAD_BYTES or start + length > len(data):
        return None
    payload = data[start : start + length]
    return payload if crc32(payload) == checksum else None


def _next_whole(data: bytes, at: int) -> int:
    """Where the next whole record begins, or the end."""
    found = data.find(_MARK, at + 1)
    while found != -1 and _payload_at(data, found) is None:
        found = data.find(_MARK, found + 1)
    return len(data) if found == -1 else found
