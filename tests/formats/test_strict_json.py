"""gateway.formats.strict_json: what two parsers could read in two ways is refused."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.formats.strict_json import MAX_DEPTH, parse_object

MIB = 1024 * 1024


def nested(depth: int) -> bytes:
    """An object of this many levels, itself included."""
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


READ = [
    pytest.param(b"{}", {}, id="no keys"),
    pytest.param(b' \r\n\t{"a" : 1}\n', {"a": 1}, id="white space around"),
    pytest.param(b'{"a":{"a":[{"a":1}]}}', {"a": {"a": [{"a": 1}]}}, id="the same key on several levels"),
    pytest.param(b'{"a":[{"b":1},{"b":2}]}', {"a": [{"b": 1}, {"b": 2}]}, id="the same key in neighbours"),
    pytest.param('{"ä":"日本 😀"}'.encode(), {"ä": "日本 😀"}, id="letters beyond ASCII"),
    pytest.param(b'{"a":"\\ud83d\\ude00"}', {"a": "😀"}, id="an escaped pair of surrogates"),
    pytest.param(b'{"a":"\\u0000\\"\\\\"}', {"a": '\0"\\'}, id="escapes"),
    pytest.param(b'{"a":"{\\"a\\":1,\\"a\\":2}"}', {"a": '{"a":1,"a":2}'}, id="duplicates inside a string"),
    pytest.param(b'{"a":9223372036854775807}', {"a": 2**63 - 1}, id="the largest integer"),
    pytest.param(b'{"a":-9223372036854775808}', {"a": -(2**63)}, id="the smallest integer"),
    pytest.param(b'{"a":-0}', {"a": 0}, id="minus zero"),
    pytest.param(b'{"a":1e300}', {"a": 1e300}, id="a large double"),
    pytest.param(b'{"a":1.50}', {"a": 1.5}, id="a double with a needless zero"),
    pytest.param(nested(MAX_DEPTH), json.loads(nested(MAX_DEPTH)), id="64 levels"),
]

REFUSED = [
    pytest.param(b"", "is empty", id="empty"),
    pytest.param(b" \n" * MIB, "is empty", id="two MiB of white space"),
    pytest.param(b'\xef\xbb\xbf{"a":1}', "byte order mark", id="byte order mark"),
    pytest.param('{"a":1}'.encode("utf-16"), "not valid UTF-8", id="UTF-16"),
    pytest.param('{"a":1}'.encode("utf-16-le"), "not valid JSON", id="UTF-16 without a mark"),
    pytest.param(b'{"a":"\xff"}', "not valid UTF-8", id="a byte that is not UTF-8"),
    pytest.param(b'{"a":"\xc0\xaf"}', "not valid UTF-8", id="an overlong sequence"),
    pytest.param(b'{"a":"\xed\xa0\x80"}', "not valid UTF-8", id="an encoded surrogate"),
    pytest.param(b'{"a":1}{"b":2}', "Extra data", id="a second object"),
    pytest.param(b'{"a":1}x', "Extra data", id="a letter behind"),
    pytest.param(b'{"a":1,}', "not valid JSON", id="a trailing comma"),
    pytest.param(b"{'a':1}", "not valid JSON", id="single quotation marks"),
    pytest.param(b'{"a":1', "not valid JSON", id="cut"),
    pytest.param(b'{"a":"\n"}', "not valid JSON", id="a raw line feed in a string"),
    pytest.param(b'{"a":01}', "not valid JSON", id="a leading zero"),
    pytest.param(b"[]", "not an array", id="an array"),
    pytest.param(b'"a"', "not a string", id="a string"),
    pytest.param(b"1", "not a number", id="a number"),
    pytest.param(b"true", "not a boolean", id="a boolean"),
    pytest.param(b"null", "not null", id="null"),
    pytest.param(b'{"a":1,"a":1}', "'a' stands twice", id="a duplicate at the top"),
    pytest.param(b'{"b":[{"a":1,"c":2,"a":3}]}', "'a' stands twice", id="a duplicate deep down"),
    pytest.param(b'{"a":1,"\\u0061":2}', "'a' stands twice", id="a duplicate in escapes"),
    pytest.param(b'{"a":1,"a" : 2}', "'a' stands twice", id="a duplicate behind white space"),
    pytest.param(b'{"x":1e1,"a":1,"a":2}', "'a' stands twice", id="a duplicate beside a number that grows"),
    pytest.param(b'{"a":NaN}', "NaN", id="NaN"),
    pytest.param(b'{"a":Infinity}', "Infinity", id="Infinity"),
    pytest.param(b'{"a":-Infinity}', "-Infinity", id="minus Infinity"),
    pytest.param(b'{"a":1e999}', "too large", id="an infinite double"),
    pytest.param(b'{"a":-1e999}', "too large", id="an infinite negative double"),
    pytest.param(b'{"a":9223372036854775808}', "too large", id="2^63"),
    pytest.param(b'{"a":[-9223372036854775809]}', "too large", id="below -2^63"),
    pytest.param(b'{"a":18446744073709551616}', "too large", id="2^64"),
    pytest.param(b'{"a":' + b"1" * 5_000 + b"}", "too large", id="5,000 digits"),
    pytest.param(b"18446744073709551616", "too large", id="2^64 at the top"),
    pytest.param(b'{"a":"\\ud800"}', "half a surrogate", id="half a surrogate pair"),
    pytest.param(b'{"\\udc00":1}', "half a surrogate", id="half a surrogate pair in a key"),
    pytest.param(b'{"\\ud800":1,"\\ud800":2}', "stands twice", id="half a pair as a duplicate"),
    pytest.param(b'"\\ud800"', "half a surrogate", id="half a surrogate pair at the top"),
    pytest.param(nested(MAX_DEPTH + 1), "deeper than 64", id="65 levels"),
    pytest.param(b'{"a":' + b"[" * 64 + b"]" * 64 + b"}", "deeper than 64", id="65 levels of arrays"),
    pytest.param(nested(5_000), "deeper than 64", id="5,000 levels of objects"),
    pytest.param(b'{"a":' + b"[" * 100_000, "deeper than 64", id="100,000 open brackets"),
    pytest.param(b"[" * 100_000 + b"]" * 100_000, "deeper than 64", id="100,000 levels of arrays"),
]


@pytest.mark.parametrize(("data", "expected"), READ)
def test_an_object_is_read(data: bytes, expected: dict[str, Any]) -> None:
    """What has one meaning is read, however it is spaced and escaped."""
    assert parse_object(data) == expected


@pytest.mark.parametrize(("data", "because"), REFUSED)
def test_what_has_two_readings_is_refused(data: bytes, because: str) -> None:
    """The sentence says what is wrong; it never repeats the body."""
    with pytest.raises(InvalidRequest, match=because) as raised:
        parse_object(data)

    assert len(raised.value.sentence) < 200


def test_a_duplicate_is_named() -> None:
    """A caller finds the field by `param`, which is cut where the name is endless."""
    with pytest.raises(InvalidRequest) as raised:
        parse_object(b'{"%(name)s":1,"%(name)s":2}' % {b"name": b"n" * 1_000})

    assert raised.value.param == "n" * 64


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.sampled_from('ab:" \\{}'), max_size=3), inner)
    ),
    max_leaves=20,
)
objects = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), values, max_size=4)


@given(objects)
def test_what_orjson_writes_reads_back(value: dict[str, Any]) -> None:
    """Ordinary clients send compact JSON."""
    assert parse_object(orjson.dumps(value)) == value


@given(objects)
def test_what_the_standard_library_writes_reads_back(value: dict[str, Any]) -> None:
    """Others send escapes and spaces: it is read another way, to the same value."""
    assert parse_object(json.dumps(value).encode()) == value


@given(objects, st.sampled_from([(",", ":"), (", ", ": "), (" ,", " :\n")]), st.booleans())
def test_a_key_that_is_added_once_more_is_refused(
    value: dict[str, Any], separators: tuple[str, str], ascii: bool
) -> None:
    """No spelling of a body hides a duplicate."""
    text = json.dumps({"twice": 0, **value}, separators=separators, ensure_ascii=ascii)

    with pytest.raises(InvalidRequest, match="stands twice"):
        parse_object((text[:-1] + separators[0] + '"twice"' + separators[1] + "0}").encode())


@given(st.binary(max_size=40) | st.text('{}[]":,0123456789eE.-\\u dtrfalsn', max_size=40).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """Nothing but an InvalidRequest comes out of any bytes, and what is read can be written."""
    try:
        value = parse_object(data)
    except InvalidRequest:
        return
    assert orjson.loads(orjson.dumps(value)) == value
