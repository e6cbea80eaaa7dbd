"""Lines for a reader that is slow, or gone."""

import os

from gateway.sinks.line_writer import LineWriter


def lost(lines: int) -> bytes:
    return b"lost %d\n" % lines


def test_lines_come_in_their_order():
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end, lost)

    for number in range(100):
        writer.put(b"%d\n" % number)
    writer.close(30)

    os.close(write_end)
    with os.fdopen(read_end, "rb") as reader:
        assert reader.read() == b"".join(b"%d\n" % number for number in range(100))


def test_a_reader_that_never_reads_holds_nobody_up():
    """Neither who writes nor, for long, the end of the process."""
    read_end, write_end = os.pipe()
    writer = LineWriter(write_end, lost, max_lines=10)

    for _ in range(10_000):
        writer.put(b"x" * 1000)
    writer.close(0.1)

    assert len(os.read(read_end, 1 << 20)) > 0
    os.close(read_end)  # the thread that writes is told, and ends
    writer.close(30)
    os.close(write_end)


def test_a_reader_that_is_gone_is_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    writer = LineWriter(write_end, lost)

    writer.put(b"nobody hears this\n")
    writer.close(30)

    os.close(write_end)
