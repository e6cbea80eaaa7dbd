"""The embedding model."""

import pytest

from gateway.demo.engine import Engine
from tests.engines import ask_json


def test_texts_with_common_words_are_near(engine_embed: Engine):
    """The vectors have length one and are the mean over the tokens."""
    texts = ["hello good world", "hello world", "number of words"]

    found = ask_json(engine_embed, "/v1/embeddings", {"input": texts})["data"]

    first, near, far = (item["embedding"] for item in found)
    assert dot(first, first) == pytest.approx(1.0)
    assert dot(first, near) > 0.7
    assert dot(first, far) < 0.5


def dot(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))
