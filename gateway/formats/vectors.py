"""Vectors: as numbers in JSON, and as base64 of little-endian float32. No number changes on the way.

They are kept in arrays, an eighth to a quarter of what Python's own floats take: a batch has millions.
"""

import sys
from array import array
from binascii import a2b_base64, b2a_base64
from math import hypot, isfinite
from typing import Any, Final, TypeAlias

import orjson

from gateway.errors import BackendFailed

# `f` where the numbers came as float32, `d` where they came as text, which may hold more.
Vector: TypeAlias = "array[float]"

# How far from 1 the length of a vector may be that was made to have it, in float32 or half of that.
_UNIT_TOLERANCE: Final = 1e-3


def of_numbers(value: Any) -> Vector:
    """A JSON array of numbers. Raise BackendFailed for anything else."""
    try:
        return _checked(array("d", value))
    except (TypeError, ValueError, OverflowError):
        raise _unreadable() from None


def of_base64(text: str) -> Vector:
    """Little-endian float32 in standard base64. Raise BackendFailed for anything else."""
    vector = array("f")
    try:
        vector.frombytes(a2b_base64(text, strict_mode=True))
    except ValueError:
        raise _unreadable() from None
    return _checked(_swapped(vector))


def as_json(vector: Vector) -> bytes:
    """Each number as the shortest text that reads back as the same one."""
    return orjson.dumps(vector.tolist())


def as_base64(vector: Vector) -> bytes:
    return b2a_base64(_swapped(array("f", vector)), newline=False)


def shortened(vector: Vector, dimensions: int | None) -> Vector:
    """The first `dimensions` numbers, brought to length one; a vector that has no more stays as it is."""
    if dimensions is None or len(vector) <= dimensions:
        return vector
    return _scaled(vector[:dimensions])


def unit(vector: Vector) -> Vector:
    """The same direction at length one. What has that already is not touched, and neither are zeros."""
    return vector if abs(hypot(*vector) - 1) <= _UNIT_TOLERANCE else _scaled(vector)


def _scaled(vector: Vector) -> Vector:
    length = hypot(*vector)
    return array(vector.typecode, [number / length for number in vector]) if length else vector


def _swapped(vector: Vector) -> Vector:
    """From the wire's order of bytes to this machine's, or back."""
    if sys.byteorder == "big":
        vector.byteswap()
    return vector


def _checked(vector: Vector) -> Vector:
    # One number that is none spoils the sum.
    if not vector or not isfinite(sum(vector)):
        raise _unreadable()
    return vector


def _unreadable() -> BackendFailed:
    return BackendFailed("The model's server sent what is no vector.")
