"""gateway.formats.durations: keep_alive as Ollama reads it."""

import pytest

from gateway.errors import InvalidRequest
from gateway.formats.durations import read_keep_alive, seconds_of
from gateway.formats.fields import Fields

DURATIONS = [
    ("5m", 300),
    ("1h30m", 5_400),
    ("300ms", 0.3),
    ("1.5h", 5_400),
    (".5s", 0.5),
    ("1.s", 1),
    ("0", 0),
    ("0s", 0),
    ("-1s", -1),
    ("-0", 0),
    ("+2s", 2),
    ("3us", 3e-6),
    ("3µs", 3e-6),
    ("3μs", 3e-6),
    ("2000000h", 7_200_000_000),
]
NO_DURATIONS = [
    "",
    "300",
    "5",
    "m",
    "5 m",
    "5min",
    "1d",
    "--1s",
    "1m-1s",
    "٥m",
    "1e3s",
    "s5",
    "9" * 70 + "s",
    "9999999999s",
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS, ids=repr)
def test_a_go_duration_is_read(text, seconds):
    """The grammar of Go's time.ParseDuration."""
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", NO_DURATIONS, ids=repr)
def test_what_go_refuses_is_refused(text):
    """A number without a unit is an error in Ollama too; what overflows wraps around there."""
    assert seconds_of(text) is None


@pytest.mark.parametrize(
    ("value", "seconds"), [(None, None), (300, 300), (0, 0), (-1, -1), (1.5, 1.5), ("10m", 600), ("-1", None)]
)
def test_keep_alive_is_seconds_or_a_duration(value, seconds):
    """Whatever the spelling, one number of seconds comes out, for a rule to bound."""
    fields = Fields({"keep_alive": value})

    if value == "-1":
        with pytest.raises(InvalidRequest, match="duration such as '5m'"):
            read_keep_alive(fields)
    else:
        assert read_keep_alive(fields) == seconds


@pytest.mark.parametrize("value", [True, [], {}, 1e12, "forever"], ids=repr)
def test_another_keep_alive_is_refused(value):
    """The error names the field."""
    with pytest.raises(InvalidRequest) as raised:
        read_keep_alive(Fields({"keep_alive": value}))

    assert raised.value.param == "keep_alive"
