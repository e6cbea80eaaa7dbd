"""Cut bytes as a network does: anywhere."""

from itertools import pairwise

from hypothesis import strategies as st

places = st.lists(st.integers(min_value=0, max_value=100_000), max_size=20)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes in pieces, cut at these places (modulo the length)."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:stop] for start, stop in pairwise(edges)]
