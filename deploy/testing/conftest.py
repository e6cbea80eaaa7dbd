"""One engine and one stack for all tests. Where no engine can run, all are skipped, with the reason."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.testing import base_images
from deploy.testing.engine import Engine, Unavailable, an_engine
from deploy.testing.stack import Stack


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    try:
        context = an_engine()
        engine = context.__enter__()
    except Unavailable as error:
        pytest.skip(f"The deployment can't be tested here: {error}")
    try:
        yield engine
    finally:
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def stack(engine: Engine) -> Iterator[Stack]:
    """Up, with a first key."""
    try:
        base_images.made(engine)
    except Unavailable as error:
        pytest.skip(f"The deployment can't be tested here: {error}")
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(engine, Path(folder) / "a fresh clone")
        stack.folder.mkdir()
        stack.prepare()
        try:
            stack.up()
            yield stack
        except RuntimeError:
            print(stack.compose("logs", "--tail", "30", check=False))
            raise
        finally:
            stack.down()
