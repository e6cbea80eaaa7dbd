"""gateway.formats.vectors: numbers that no wire may change."""

import base64
import struct
from array import array
from math import hypot

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BackendFailed
from gateway.formats.vectors import as_base64, as_json, of_base64, of_numbers, shortened, unit

singles = st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1)
doubles = st.lists(st.floats(-1e300, 1e300), min_size=1)


@given(numbers=doubles)
def test_numbers_in_text_stay_the_same(numbers: list[float]):
    """To the last bit of a float64: what comes as text goes as text."""
    assert orjson.loads(as_json(of_numbers(numbers))) == numbers


@given(numbers=singles)
def test_float32_survives_every_way(numbers: list[float]):
    """From base64 to text, from text to base64, and back."""
    packed = base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers))
    from_base64 = of_base64(packed.decode())
    from_text = of_numbers(orjson.loads(as_json(from_base64)))

    assert from_base64.tolist() == numbers
    assert from_text.tolist() == numbers
    assert as_base64(from_base64) == as_base64(from_text) == packed


def test_text_of_float32_is_rounded_to_the_one_that_was_meant():
    """Go writes float32 with nine digits at most."""
    (meant,) = struct.unpack("<f", struct.pack("<f", 0.036699954))

    assert as_base64(of_numbers([0.036699954])) == base64.b64encode(struct.pack("<f", meant))


@pytest.mark.parametrize(
    "value",
    [None, [], {}, "0.5", 5, [None], ["0.5"], [[0.5]], [1e308, 1e308], [True, None], [10**400]],
    ids=repr,
)
def test_what_is_no_vector_is_a_failure(value: object):
    """llama.cpp writes null for a number that is none."""
    with pytest.raises(BackendFailed):
        of_numbers(value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("AAA", id="cut base64"),
        pytest.param("AAAA", id="three bytes"),
        pytest.param("AAAAAA==\n", id="a line end"),
        pytest.param("AACAfw==", id="infinity"),
        pytest.param("AADAfw==", id="not a number"),
        pytest.param("äöü=", id="no ASCII"),
    ],
)
def test_what_is_no_base64_of_a_vector_is_a_failure(text: str):
    with pytest.raises(BackendFailed):
        of_base64(text)


@pytest.mark.parametrize("code", ["f", "d"])
def test_a_shortened_vector_has_length_one(code: str):
    """As Ollama and OpenAI do it; what is short enough is not touched."""
    vector = array(code, [3.0, 4.0, 12.0])

    cut = shortened(vector, 2)

    assert cut == array(code, array(code, [0.6, 0.8]))
    assert shortened(vector, 3) is shortened(vector, 9) is shortened(vector, None) is vector


def test_a_unit_vector_is_not_touched():
    """Scaling it again would change its last bits."""
    almost = array("f", [0.6, 0.8])
    zeros = array("d", [0.0, 0.0])

    assert unit(almost) is almost
    assert hypot(*unit(array("d", [3.0, 4.0]))) == pytest.approx(1)
    assert unit(zeros) is zeros
