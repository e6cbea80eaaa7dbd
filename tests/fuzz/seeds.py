"""Seeded generators for the fuzz tests: the same examples in every run, more of them with FUZZ_FACTOR.

`FUZZ_FACTOR=100 pytest tests/fuzz` runs a hundred times as many.
"""

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from tests.effort import times


def examples(seed: int, count: int) -> Iterator[Random]:
    """`count` sources of randomness, each independent of the others; a failing one is told by its number."""
    for number in range(times(count)):
        yield Random(f"{seed}/{number}")


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
    *(0.5, -0.0, 1e300, -1e300, 1e30, 1e-300),
    *("", "x", "0", "true", "\x00", "\u2028\u0085", "\N{FULLWIDTH LATIN SMALL LETTER A}", "nz_", "é" * 300),
    *(
        "../../api/pull",
        "http://169.254.169.254/",
        "5m",
        "-1s",
        "data:image/png;base64,AAAA",
        "AAAA",
        "{",
        "[]",
    ),
    *([], {}, [None], [[]], {"": None}, [1, "a", {}], {"error": {}}, nested(60), nested(70), nested(300)),
)


# Names that a lenient parser folds onto the one that is meant.
LOOK_ALIKES = (
    str.upper,
    str.capitalize,
    lambda name: name.replace("s", "\N{LATIN SMALL LETTER LONG S}", 1),
    lambda name: name.replace("k", "\N{KELVIN SIGN}", 1),
    lambda name: name + " ",
)


def mutated(random: Random, value: Any) -> Any:
    """The same value with one or two places changed to something odd, left out, doubled, or look-alike."""
    for _ in range(random.randint(1, 2)):
        value = _mutated_once(random, value)
    return value


def _mutated_once(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.85:
        name = random.choice(list(value))
        if random.random() < 0.08:
            return {other: below for other, below in value.items() if other != name}
        if random.random() < 0.1:
            return value | {random.choice(LOOK_ALIKES)(name): random.choice(ODD)}
        return value | {name: _mutated_once(random, value[name])}
    if isinstance(value, list) and value and random.random() < 0.85:
        index = random.randrange(len(value))
        if random.random() < 0.1:
            return [*value, value[index]]
        return [*value[:index], _mutated_once(random, value[index]), *value[index + 1 :]]
    return random.choice(ODD)


def as_json(value: Any) -> bytes:
    """JSON as a careless server writes it, of any depth."""
    return json.dumps(value).encode()
