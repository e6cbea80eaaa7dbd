"""SIGHUP: what is read again, and what a mistake changes."""

from collections.abc import Mapping

import pytest
from loguru import logger

from gateway.config import BackendConfig, Config, parse
from gateway.reloading import Reloading


class Replica:
    """What was applied, and logged."""

    def __init__(self, **values: str) -> None:
        self.values: Mapping[str, str] = values
        self.applied: list[tuple[BackendConfig, ...]] = []
        self.reloading = Reloading(parse(values), self.read, self.apply)

    def read(self) -> Config:
        return parse(self.values)

    async def apply(self, backends: tuple[BackendConfig, ...]) -> None:
        self.applied.append(backends)


@pytest.fixture
def told():
    lines: list[str] = []
    number = logger.add(
        lambda message: lines.append(f"{message.record['message']} {message.record['extra']}")
    )
    yield lines
    logger.remove(number)


async def test_the_backends_are_taken_over(told: list[str]):
    replica = Replica(OLLAMA_BACKENDS="a=http://a,b=http://b")
    replica.values = {"OLLAMA_BACKENDS": "b=http://b;slots=2,c=http://c"}

    await replica.reloading.reload()

    assert [[one.name for one in backends] for backends in replica.applied] == [["b", "c"]]
    assert "'added': ['c'], 'removed': ['a'], 'changed': ['b']" in told[-1]


async def test_a_mistake_is_logged_and_nothing_changes(told: list[str]):
    """Also one in another setting: who reads a half-written file must not act on it."""
    replica = Replica(OLLAMA_BACKENDS="a=http://a")
    replica.values = {"OLLAMA_BACKENDS": "a=http://a,b=htp://b", "GATEWAY_DRAIN_S": "soon"}

    await replica.reloading.reload()

    assert replica.applied == []
    assert [line.count("nothing changes") for line in told] == [1, 1]
    assert "OLLAMA_BACKENDS entry 'b=htp://b'" in told[1]


async def test_a_file_that_cannot_be_read_changes_nothing(told: list[str]):
    replica = Replica(OLLAMA_BACKENDS="a=http://a")

    def unreadable() -> Config:
        raise PermissionError("'.env'")

    replica.reloading = Reloading(parse(replica.values), unreadable, replica.apply)
    await replica.reloading.reload()

    assert replica.applied == []
    assert "nothing changes" in told[0]


async def test_other_settings_wait_for_the_next_start_and_are_named(told: list[str]):
    """Never with their values."""
    replica = Replica(GATEWAY_SECRET="0123456789abcdef" * 4)
    replica.values = {"GATEWAY_SECRET": "fedcba9876543210" * 4, "DATABASE_URL": "sqlite:///other.db"}

    await replica.reloading.reload()

    assert len(replica.applied) == 1
    assert {line.split()[0] for line in told[:-1]} == {"GATEWAY_SECRET", "DATABASE_URL"}
    assert "fedcba" not in "".join(told)


async def test_asked_twice_it_reads_one_after_another():
    replica = Replica(OLLAMA_BACKENDS="a=http://a")

    replica.reloading.ask()
    replica.reloading.ask()
    for task in list(replica.reloading._tasks):
        await task

    assert len(replica.applied) == 2
