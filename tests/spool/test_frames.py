"""Frames: whatever happened to a file, every record whose own bytes are whole is found."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.spool.frames import MAX_PAYLOAD_BYTES, Reading, frame, read

PAYLOADS = [b'{"a":1}', b"", b"NZ\x1e\x02 the mark itself", b"\x00\xff" * 20, b"last"]
FILE = b"".join(map(frame, PAYLOADS))
ENDS = [sum(len(frame(payload)) for payload in PAYLOADS[: count + 1]) for count in range(len(PAYLOADS))]


def whole_before(size: int) -> list[bytes]:
    return [payload for payload, end in zip(PAYLOADS, ENDS, strict=True) if end <= size]


def test_what_was_framed_is_read():
    assert read(FILE, 100) == Reading(PAYLOADS, len(FILE))


def test_a_batch_ends_where_the_next_begins():
    """Reading goes on at `used_bytes`."""
    first = read(FILE, 2)

    assert first == Reading(PAYLOADS[:2], ENDS[1])
    assert read(FILE[first.used_bytes :], 100).payloads == PAYLOADS[2:]


@pytest.mark.parametrize("size", range(len(FILE)))
def test_a_torn_tail_costs_the_torn_record_only(size):
    """Cut at every byte: a kill or a full disk may end the file anywhere."""
    reading = read(FILE[:size], 100)

    whole = whole_before(size)
    torn = size - (ENDS[len(whole) - 1] if whole else 0)
    assert reading.payloads == whole
    assert reading.used_bytes == size
    assert (reading.gaps, bool(reading.lost_bytes)) == (int(torn > 0), torn > 0)


@pytest.mark.parametrize("at", range(len(FILE)))
def test_a_flipped_byte_costs_its_record_only(at):
    """Also in a length or a mark: reading goes on at the next record that is whole."""
    for flip in (0x01, 0x80, 0xFF):
        data = bytearray(FILE)
        data[at] ^= flip
        hit = sum(end <= at for end in ENDS)

        reading = read(bytes(data), 100)

        assert reading.payloads == PAYLOADS[:hit] + PAYLOADS[hit + 1 :]
        assert (reading.gaps, reading.used_bytes) == (1, len(FILE))
        assert reading.lost_bytes > 0


def test_space_that_was_allocated_and_not_written_is_no_loss():
    """The space that is kept for settlements is a file of zeros."""
    assert read(FILE + bytes(5000), 100) == Reading(PAYLOADS, len(FILE) + 5000)
    assert read(bytes(5000), 100) == Reading([], 5000)


@given(noise=st.binary(max_size=200), before=st.integers(0, 5))
def test_noise_between_records_is_skipped(noise, before):
    """Never a crash, and never less than what is whole."""
    at = [0, *ENDS][before]

    reading = read(FILE[:at] + noise + FILE[at:], 100)

    assert reading.payloads == PAYLOADS
    assert reading.used_bytes == len(FILE) + len(noise)


def test_noise_alone_is_read_in_no_time():
    """A file of marks that begin nothing must not cost the square of its size."""
    noise = random.Random(1).randbytes(100_000) + b"NZ\x1e\x02" * 100_000

    assert read(noise, 100).payloads == []


def test_a_record_beyond_all_measure_is_refused():
    """Its length would be taken for damage when it is read."""
    with pytest.raises(ValueError, match="a record of"):
        frame(bytes(MAX_PAYLOAD_BYTES + 1))
