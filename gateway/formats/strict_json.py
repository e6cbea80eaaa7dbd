"""JSON bodies, read so that no second parser can read them differently.

Parsers disagree on duplicate keys, NaN, huge numbers, half surrogates and on what follows the value;
what we decided on must be what a backend reads. So all of these are refused.

Most clients send exactly the bytes that orjson would write of the value. Then it can have lost no
duplicate key and rounded no number, and writing it once more proves that for a tenth of the cost of
looking. Anything else is read by the standard library with hooks, whose word is final.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import orjson

from gateway.errors import InvalidRequest
from gateway.model import JsonObject

MAX_DEPTH: Final = 64
_COUNTED_BYTES: Final = 2048
# To read a value and to write it takes up to some microseconds.
FEW_VALUES: Final = 4096
# Go reads integers as int64; what does not fit is an error or a rounded double, as the parser pleases.
MAX_INTEGER: Final = 2**63 - 1
MIN_INTEGER: Final = -(2**63)

# A name that stands in a sentence is cut here.
_SHOWN_CHARACTERS: Final = 64
_BOM: Final = b"\xef\xbb\xbf"
# Refuses to write integers beyond 53 bits: those are looked at one by one.
_STRICT: Final = orjson.OPT_STRICT_INTEGER


def parse_object(data: bytes) -> JsonObject:
    """The one JSON object that `data` holds. Raise InvalidRequest for anything that is read in two ways.

    Refused: an empty body, a byte order mark, bytes that are not UTF-8, anything after the object, a top
    that is no object, a key that stands twice in one object, NaN and infinities (`1e999`), integers
    beyond 64 bits, more than `MAX_DEPTH` levels, and escapes of half a surrogate pair.
    """
    return proven(read_at_once(data), data)


def read_at_once(data: bytes) -> Any:
    """What `data` holds, where these are the bytes that orjson would write of it; else None.

    Two calls of C, whatever there is of it.
    """
    try:
        value = orjson.loads(data)
        return value if orjson.dumps(value, option=_STRICT) == data else None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return None


def proven(value: Any, data: bytes) -> JsonObject:
    """The rest of `parse_object`, of what `read_at_once` gave. Takes the longer the more values there are."""
    if value is None:
        value = _parse_exactly(data)
    if type(value) is not dict:
        raise InvalidRequest(f"The body must be a JSON object, not {_kind_of(value)}.")
    # Most small bodies open fewer arrays and objects than may stand in each other. Of a large one it takes
    # longer to count them than to look.
    is_counted = len(data) < _COUNTED_BYTES and data.count(b"{") + data.count(b"[") <= MAX_DEPTH
    if not is_counted and is_too_deep(value):
        raise _too_deep()
    return value


def is_light(value: Any) -> bool:
    """Whether it is an object of few values and not too deep: `proven` has nothing to say of such a one."""
    if type(value) is not dict:
        return False
    values = 0
    for depth, level in enumerate(_levels(value), 1):
        values += sum(map(len, level))
        if values > FEW_VALUES or depth > MAX_DEPTH:
            return False
    return True


def is_too_deep(value: Any) -> bool:
    """More than MAX_DEPTH levels of arrays and objects: what orjson reads and can't write begins at 254."""
    return any(depth > MAX_DEPTH for depth, _ in enumerate(_levels(value), 1))


def _levels(value: Any) -> Iterator[list[Any]]:
    """The arrays and objects of each level: the value, if it is one, those in it, those in them, and on."""
    level = [value] if type(value) is dict or type(value) is list else []
    while level:
        yield level
        level = [
            below
            for node in level
            for below in (node.values() if type(node) is dict else node)
            if type(below) is dict or type(below) is list
        ]


def _parse_exactly(data: bytes) -> Any:
    if not data or data.isspace():
        raise InvalidRequest("The body is empty; send a JSON object.")
    if data.startswith(_BOM):
        raise InvalidRequest("The body starts with a byte order mark; send plain UTF-8.")
    try:
        value = _DECODER.decode(data.decode())
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error.msg}, at character {error.pos}.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        # Python refuses to convert integers of thousands of digits, as that takes quadratic time.
        raise _too_large() from None
    _check_what_orjson_cannot_write(value)
    return value


def _check_what_orjson_cannot_write(value: Any) -> None:
    """Integers beyond 53 bits, half surrogates, deep nesting: let pass only what fits 64 bits."""
    try:
        orjson.dumps(value, option=_STRICT)
    except orjson.JSONEncodeError:
        if is_too_deep(value):
            raise _too_deep() from None
        _check_integers(value)
        try:
            orjson.dumps(value)
        except orjson.JSONEncodeError:
            raise InvalidRequest("A string in the body holds half a surrogate pair.") from None


def _check_integers(value: Any) -> None:
    # No deeper than MAX_DEPTH: the depth has been checked.
    if type(value) is int and not MIN_INTEGER <= value <= MAX_INTEGER:
        raise _too_large()
    if type(value) is dict:
        value = value.values()
    elif type(value) is not list:
        return
    for below in value:
        _check_integers(below)


def _distinct(pairs: list[tuple[str, Any]]) -> JsonObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _twice(pairs)
    return value


def _twice(pairs: list[tuple[str, Any]]) -> InvalidRequest:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            break
        seen.add(name)
    shown = name[:_SHOWN_CHARACTERS].encode("utf-8", "replace").decode()
    return InvalidRequest(f"'{shown}' stands twice in one object; give it once.", param=shown)


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise _too_large()
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"The body holds {name}, which is not JSON.")


def _too_large() -> InvalidRequest:
    return InvalidRequest("The body holds a number that is too large: beyond 64 bits, or not finite.")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _kind_of(value: object) -> str:
    kinds = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_distinct, parse_float=_finite, parse_constant=_refuse_constant
)
