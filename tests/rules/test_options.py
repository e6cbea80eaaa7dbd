"""The firewall of options: one caller's wishes, within what all can bear."""

import pytest

from gateway.rules.options import OptionBounds

BOUNDS = OptionBounds(max_keep_alive_s=1800, max_num_ctx=32768)


@pytest.mark.parametrize(
    ("asked_s", "expected"),
    [(None, None), (0, None), (-1, None), (-60.0, None), (0.5, 0.5), (300, 300), (1e12, 1800)],
)
def test_keep_alive_can_neither_unload_nor_pin(asked_s: float | None, expected: float | None):
    assert BOUNDS.keep_alive(asked_s) == expected


@pytest.mark.parametrize(
    ("asked", "expected"), [(None, None), (1, 1), (8192, 8192), (32769, 32768), (10**12, 32768)]
)
def test_the_context_is_capped(asked: int | None, expected: int | None):
    """A million tokens of context would be the memory of all."""
    assert BOUNDS.num_ctx(asked) == expected
