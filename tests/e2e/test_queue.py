"""Several backends and their queues, in a running gateway: real engines, and servers that misbehave."""

import asyncio
import json
import re
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from attrs import define, field

from gateway.demo.engine import Engine
from tests.doubles import (
    HEAD_OF_STREAM,
    SHOWN,
    Double,
    Script,
    answer,
    chat_frame,
    chunk,
    hang,
    raw,
    reset_after,
    tags_of,
    zipped,
)
from tests.effort import times
from tests.engines import wait_until
from tests.gateways import Gateway, heal

SOON = 60.0
TURN_S = 1.0
WAITING = 60
DONE = answer(200, chat_frame("Hello", done=True))


def listing(*names: str, loaded: bool = True) -> Double:
    """A server that has these models, and says that it has them in memory."""
    cards = [card for name in names for card in tags_of(name)["models"]]
    held = [{"name": name, "model": name} for name in names] if loaded else []
    return Double(
        {
            "/api/tags": answer(200, {"models": cards}),
            "/api/show": answer(200, SHOWN),
            "/api/ps": answer(200, {"models": held}),
            "/api/chat": DONE,
        }
    )


def for_model(scripts: dict[str, Script], requests: Double) -> Script:
    """Answer by the model that was asked for."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        model = requests.received[-1].json()["model"]
        await scripts[model](reader, writer)

    return script


@define
class OneModel:
    """A server that has room for one model: when which was loaded."""

    loads: list[tuple[str, float]] = field(factory=list)
    double: Double = field(factory=lambda: listing("x:latest", "y:latest", loaded=False))

    def __attrs_post_init__(self) -> None:
        self.double.scripts["/api/chat"] = self._answer
        self.double.scripts["/api/ps"] = self._tell

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        model = self.double.received[-1].json()["model"]
        if not self.loads or self.loads[-1][0] != model:
            self.loads.append((model, time.monotonic()))
        await DONE(reader, writer)

    async def _tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held = [{"name": self.loads[-1][0], "model": self.loads[-1][0]}] if self.loads else []
        await answer(200, {"models": held})(reader, writer)


@define
class House:
    """A gateway before several backends."""

    gateway: Gateway
    mixed: Double
    swapping: OneModel
    twins: tuple[Double, Double]
    pair: tuple[Double, Double]
    small: Double
    mad: Double

    def ask(self, model: str, key: str = "", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self.gateway.key}"}
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": False} | more
        return httpx.post(
            f"{self.gateway.url}/api/chat", json=body, headers=headers, timeout=SOON, trust_env=False
        )

    def key_of(self, tenant: str, *options: str) -> str:
        self.gateway.json("create-tenant", "--name", tenant, *options)
        return str(self.gateway.json("create-key", "--tenant", tenant, "--name", "ci")["key"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, engine_greeting: Engine) -> Iterator[House]:
    swapping = OneModel()
    mixed, small, mad = listing("bad:latest", "good:latest"), listing("small:latest"), listing("mad:latest")
    one, other, left, right = (listing(f"{name}:latest") for name in ("twin", "twin", "pair", "pair"))
    with mixed, small, mad, swapping.double, one, other, left, right:
        backends = (
            f"words={engine_greeting.url};kind=openai;slots=2,mixed={mixed.url};slots=2,"
            f"swapping={swapping.double.url};slots=1,one={one.url},other={other.url},"
            f"small={small.url};slots=1,mad={mad.url},left={left.url};slots=1,right={right.url};slots=1"
        )
        gateway = Gateway(
            tmp_path_factory.mktemp("the gateway with queues"),
            OLLAMA_BACKENDS=backends,
            GATEWAY_MODEL_TURN_S=str(TURN_S),
            GATEWAY_QUEUE_LENGTH=str(WAITING),
            GATEWAY_QUEUE_WAIT_S="3600",
            GATEWAY_FIRST_BYTE_TIMEOUT_S="5",
            GATEWAY_CHUNK_GAP_TIMEOUT_S="5",
            GATEWAY_ANSWER_TIMEOUT_S="5",
        )
        gateway.make_first_key()
        try:
            yield House(gateway.start(), mixed, swapping, (one, other), (left, right), small, mad)
        finally:
            gateway.stop()


async def all_at_once(house: House, model: str, count: int, key: str = "") -> list[httpx.Response]:
    return list(await asyncio.gather(*(asyncio.to_thread(house.ask, model, key) for _ in range(count))))


# ── shares ───────────────────────────────────────────────────────────────────────────────


def test_fifty_at_once_do_not_keep_one_waiting(house: House, engine_greeting: Engine):
    """On a real engine with two slots: the single sender is next but one whenever it comes.

    Its wait is of the order of one request, where the last of the fifty waits for two dozen.
    """
    many, single = house.key_of("many"), house.key_of("single")
    model = engine_greeting.serving.alias

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        flood = asyncio.create_task(flood_of(50))
        await asyncio.to_thread(wait_until, lambda: bool(house.gateway.rows("status = 200")), SOON)
        beside = [await asyncio.to_thread(house.ask, model, single) for _ in range(5)]
        return await flood, beside

    async def flood_of(count: int) -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {many}"}
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        async with httpx.AsyncClient(headers=headers, timeout=SOON, limits=limits, trust_env=False) as client:
            sent = (client.post(f"{house.gateway.url}/api/chat", json=body) for _ in range(count))
            return list(await asyncio.gather(*sent))

    flooded, beside = asyncio.run(run())

    assert {one.status_code for one in (*flooded, *beside)} == {200}
    assert any("x-queue-position" in one.headers for one in flooded)
    many_rows = [house.gateway.row_of(one.headers["x-request-id"]) for one in flooded]
    own_rows = [house.gateway.row_of(one.headers["x-request-id"]) for one in beside]
    assert all(int(one.headers.get("x-queue-position", 1)) <= 2 for one in beside)
    longest = max(row["duration_ms"] - (row["queue_ms"] or 0) for row in (*many_rows, *own_rows))
    waited = max(row["queue_ms"] or 0 for row in own_rows)
    assert waited <= 3 * longest
    assert waited < max(row["queue_ms"] or 0 for row in many_rows) / 3


def test_who_must_wait_is_told_and_who_leaves_is_not_served(house: House):
    """It is in the audit row, too; the one that left never reached the backend."""
    gate = threading.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not gate.is_set():  # noqa: ASYNC110 - an event of another thread
            await asyncio.sleep(0.02)
        await DONE(reader, writer)

    house.small.scripts["/api/chat"] = held
    before = len(house.small.inference)

    async def run() -> tuple[httpx.Response, httpx.Response]:
        first = asyncio.create_task(asyncio.to_thread(house.ask, "small"))
        await asyncio.to_thread(wait_until, lambda: len(house.small.inference) > before, SOON)
        async with httpx.AsyncClient(
            base_url=house.gateway.url, headers=house.gateway.headers, trust_env=False
        ) as client:
            body = {"model": "small", "messages": [{"role": "user", "content": "leaves"}]}
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/api/chat", json=body, timeout=1.0)
        second = asyncio.create_task(asyncio.to_thread(house.ask, "small"))
        await asyncio.sleep(0.5)
        gate.set()
        return await first, await second

    first, second = asyncio.run(run())

    assert "x-queue-position" not in first.headers
    assert second.headers["x-queue-position"] == "1"
    assert float(second.headers["x-queue-wait-ms"]) > 0
    assert house.gateway.row_of(first.headers["x-request-id"])["queue_ms"] is None
    assert house.gateway.row_of(second.headers["x-request-id"])["queue_ms"] > 0
    assert len(house.small.inference) == before + 2
    assert not any(b"leaves" in one.body for one in house.small.inference)


def test_a_full_queue_refuses_with_an_estimate(house: House):
    gate = threading.Event()

    async def held(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not gate.is_set():  # noqa: ASYNC110 - an event of another thread
            await asyncio.sleep(0.02)
        await DONE(reader, writer)

    house.small.scripts["/api/chat"] = held

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        limits = httpx.Limits(max_connections=None)
        body = {"model": "small", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        async with httpx.AsyncClient(
            base_url=house.gateway.url,
            headers=house.gateway.headers,
            timeout=SOON,
            limits=limits,
            trust_env=False,
        ) as client:
            sent = [asyncio.create_task(client.post("/api/chat", json=body)) for _ in range(WAITING + 11)]
            refused: set[Any] = set()
            pending: set[Any] = set(sent)
            while len(refused) < 10:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=SOON)
                assert done
                refused |= done
            gate.set()
            await asyncio.wait(sent)
            return [one.result() for one in refused], [one.result() for one in pending]

    refused, served = asyncio.run(run())

    assert [one.status_code for one in refused] == [503] * 10
    assert {one.status_code for one in served} == {200}
    assert all(int(one.headers["retry-after"]) >= 1 for one in refused)
    assert all(int(one.headers["x-queue-position"]) > WAITING for one in refused)
    assert "queue for this model is full" in refused[0].json()["error"]


# ── models ───────────────────────────────────────────────────────────────────────────────


def test_two_models_on_a_server_with_room_for_one_are_not_loaded_in_turns(house: House):
    """Two callers, each with a model of its own, each with the next request once it has an answer."""

    async def caller(model: str, until: float) -> int:
        served = 0
        while time.monotonic() < until:
            assert (await asyncio.to_thread(house.ask, model)).status_code == 200
            served += 1
        return served

    async def run() -> list[int]:
        until = time.monotonic() + 8 * TURN_S
        return list(await asyncio.gather(caller("x", until), caller("y", until)))

    served = asyncio.run(run())

    loads = house.swapping.loads
    for model in ("x:latest", "y:latest"):
        at = [when for name, when in loads if name == model]
        # The server notes a load when the request arrives there, which may be late of the first and not of
        # the next.
        assert all(later - sooner > 0.5 * TURN_S for sooner, later in pairwise(at))
    assert min(served) >= 1
    assert len(loads) < sum(served), "not each request loads"


def test_a_model_that_hangs_does_not_hold_up_another(house: House):
    """It has all slots; after a turn the other model is served as if it was not there."""
    house.mixed.scripts["/api/chat"] = for_model({"bad:latest": hang(), "good:latest": DONE}, house.mixed)

    async def run() -> tuple[list[httpx.Response], list[httpx.Response], httpx.Response]:
        hung = asyncio.create_task(all_at_once(house, "bad", 2))
        await asyncio.to_thread(wait_until, lambda: len(house.mixed.inference) >= 2, SOON)
        elsewhere = await asyncio.to_thread(house.ask, "twin")
        good = await all_at_once(house, "good", 4)
        assert not hung.done(), "they were not waited for"
        return await hung, good, elsewhere

    hung, good, elsewhere = asyncio.run(run())

    assert [one.status_code for one in hung] == [504, 504]
    assert [one.status_code for one in good] == [200] * 4
    assert elsewhere.status_code == 200
    assert "x-queue-position" not in elsewhere.headers


def test_a_model_that_stops_in_the_middle_does_not_hold_up_another(house: House):
    """It had begun to answer; silent for a turn, it keeps its slots from itself only."""
    heal(house.gateway.url, house.gateway.key, house.mixed, "bad")
    stops = hang(HEAD_OF_STREAM + chunk(chat_frame("I was about to")))
    house.mixed.scripts["/api/chat"] = for_model({"bad:latest": stops, "good:latest": DONE}, house.mixed)
    before = len(house.mixed.inference)

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        hung = asyncio.create_task(all_at_once_streamed(house, "bad", 2))
        await asyncio.to_thread(wait_until, lambda: len(house.mixed.inference) >= before + 2, SOON)
        good = await all_at_once(house, "good", 4)
        assert not hung.done(), "they were not waited for"
        return await hung, good

    hung, good = asyncio.run(run())

    assert [one.status_code for one in good] == [200] * 4
    assert [one.status_code for one in hung] == [200, 200]
    assert all("error" in json.loads(one.text.splitlines()[-1]) for one in hung)


# ── several backends ─────────────────────────────────────────────────────────────────────


def held_by(gate: threading.Event) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not gate.is_set():  # noqa: ASYNC110 - an event of another thread
            await asyncio.sleep(0.02)
        await DONE(reader, writer)

    return script


def waiting_at(house: House, *backends: str) -> int:
    """How many wait there, as operators see it."""
    told = httpx.get(f"{house.gateway.ops_url}/metrics", timeout=SOON, trust_env=False).text
    lengths = dict(re.findall(r'gateway_queue_length{backend="(\w+)"} (\d+)', told))
    return sum(int(lengths[backend]) for backend in backends)


def test_who_waits_is_served_by_whichever_backend_is_free_first(house: House):
    """Both are busy; one of them for long. Whoever waits goes to the other, once, wherever its place was."""
    gates = [threading.Event() for _ in house.pair]
    for backend, gate in zip(house.pair, gates, strict=True):
        backend.scripts["/api/chat"] = held_by(gate)

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        busy = [asyncio.create_task(asyncio.to_thread(house.ask, "pair")) for _ in house.pair]
        await asyncio.to_thread(
            wait_until, lambda: [len(one.inference) for one in house.pair] == [1, 1], SOON
        )
        waiting = [asyncio.create_task(asyncio.to_thread(house.ask, "pair")) for _ in range(3)]
        await asyncio.to_thread(wait_until, lambda: waiting_at(house, "left", "right") == 3, SOON)
        gates[1].set()
        served = await asyncio.gather(*waiting)
        gates[0].set()
        return list(await asyncio.gather(*busy)), served

    try:
        busy, served = asyncio.run(run())
    finally:
        for gate in gates:
            gate.set()

    assert {one.status_code for one in (*busy, *served)} == {200}
    assert [len(one.inference) for one in house.pair] == [1, 4], "each was sent once"
    rows = [house.gateway.row_of(one.headers["x-request-id"]) for one in served]
    assert {row["backend"] for row in rows} == {"right"}
    assert all(int(one.headers["x-queue-wait-ms"]) > 0 for one in served)


def test_who_waits_goes_to_a_backend_that_comes_back(house: House):
    left, right = house.pair
    gate = threading.Event()
    left.scripts["/api/chat"], right.scripts["/api/chat"] = held_by(gate), DONE
    before = [len(one.inference) for one in house.pair]
    right.__exit__()
    is_back = False

    def is_down() -> bool:
        told = httpx.get(f"{house.gateway.url}/readyz", timeout=SOON, trust_env=False).json()
        return "right" in told.get("backends", {})

    async def run() -> tuple[httpx.Response, httpx.Response]:
        nonlocal is_back
        await asyncio.to_thread(wait_until, is_down, SOON)
        busy = asyncio.create_task(asyncio.to_thread(house.ask, "pair"))
        await asyncio.to_thread(wait_until, lambda: len(left.inference) > before[0], SOON)
        waits = asyncio.create_task(asyncio.to_thread(house.ask, "pair"))
        await asyncio.to_thread(wait_until, lambda: waiting_at(house, "left") == 1, SOON)
        right.__enter__()
        is_back = True
        served = await waits
        gate.set()
        return await busy, served

    try:
        busy, served = asyncio.run(run())
    finally:
        gate.set()
        if not is_back:
            right.__enter__()

    assert (busy.status_code, served.status_code) == (200, 200)
    assert [len(one.inference) for one in house.pair] == [before[0] + 1, before[1] + 1]
    assert int(served.headers["x-queue-wait-ms"]) > 0


# ── faults of one backend ────────────────────────────────────────────────────────────────

FAULTS: dict[str, tuple[Script, int]] = {
    "hangs": (hang(), 504),
    "drips": (raw(b"HTTP/1.1 200 OK\r\nX-Slow: ", *[b"s"] * 100, gap_s=0.2), 504),
    "sends garbage": (raw(b"\0\1\2 garbage\r\n\r\n"), 502),
    "redirects": (answer(307, {}, Location="/api/pull"), 502),
    "sends an endless line": (raw(HEAD_OF_STREAM, *[b"100000\r\n%b\r\n" % (b"x" * 2**20)] * 40), 502),
    "sends a bomb": (zipped(b"0" * 50_000_000), 502),
    "dies in the middle": (reset_after(HEAD_OF_STREAM, chunk(chat_frame("x"))), 200),
    "is busy": (
        answer(503, {"error": "server busy, please try again.  maximum pending requests exceeded"}),
        503,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_callers_of_another_backend_see_nothing_and_no_request_runs_twice(house: House, name: str):
    script, status = FAULTS[name]
    heal(house.gateway.url, house.gateway.key, house.mad, "mad")
    house.mad.scripts["/api/chat"] = script
    before = len(house.mad.inference)

    async def run() -> tuple[list[httpx.Response], list[httpx.Response]]:
        mad = asyncio.create_task(all_at_once_streamed(house, "mad", 2))
        beside = await all_at_once(house, "twin", 6)
        return await mad, beside

    mad, beside = asyncio.run(run())

    assert [one.status_code for one in beside] == [200] * 6
    assert [one.status_code for one in mad] == [status] * 2
    assert len(house.mad.inference) == before + 2, "each was sent once"
    if status == 200:
        assert all("error" in json.loads(one.text.splitlines()[-1]) for one in mad)
    if status == 503:
        assert all(int(one.headers["retry-after"]) >= 1 for one in mad)


async def all_at_once_streamed(house: House, model: str, count: int) -> list[httpx.Response]:
    sent = (asyncio.to_thread(house.ask, model, stream=True) for _ in range(count))
    return list(await asyncio.gather(*sent))


PHASES: dict[str, tuple[str, Script, bool]] = {
    "its first byte": ("--first-byte-timeout", hang(), True),
    "the next piece": ("--chunk-gap-timeout", hang(HEAD_OF_STREAM + chunk(chat_frame("x"))), True),
    "the whole": ("--answer-timeout", hang(), False),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_model_may_have_a_time_of_its_own_for_each_phase(house: House, phase: str):
    """By a profile: it is given up after half a second, while others by the settings have five."""
    option, script, is_stream = PHASES[phase]
    heal(house.gateway.url, house.gateway.key, house.mad, "mad")
    name = f"hasty{option}"  # another name each time: it is known when it is served
    house.gateway.json("set-model", "--name", name, "--model", "mad", option, "0.5s")
    assert wait_until(lambda: house.ask(name).status_code == 200, SOON)
    house.mad.scripts["/api/chat"] = script

    async def run() -> tuple[httpx.Response, bool, httpx.Response]:
        patient = asyncio.create_task(asyncio.to_thread(house.ask, "mad", stream=is_stream))
        hasty = await asyncio.to_thread(house.ask, name, stream=is_stream)
        return hasty, patient.done(), await patient

    hasty, was_sooner, patient = asyncio.run(run())

    assert not was_sooner
    assert hasty.status_code == patient.status_code
    for one in (hasty, patient):
        assert house.gateway.row_of(one.headers["x-request-id"])["error_code"] == "backend_timeout"


def test_a_storm_of_busy_answers_opens_the_breaker(house: House):
    """G10: each is told 503 with a time to come back; after three in a row the server is left alone."""
    heal(house.gateway.url, house.gateway.key, house.mad, "mad")
    house.mad.scripts["/api/chat"] = FAULTS["is busy"][0]
    before = len(house.mad.inference)

    told = [house.ask("mad") for _ in range(6)]

    assert [one.status_code for one in told] == [503] * 6
    assert all(int(one.headers["retry-after"]) >= 1 for one in told)
    assert 3 <= len(house.mad.inference) - before < 6


def test_where_one_backend_is_gone_the_other_answers(house: House):
    """No connection came about, so nothing can have been done twice. Then it is left out, and comes back."""
    one, other = house.twins
    one.scripts["/api/chat"] = other.scripts["/api/chat"] = DONE
    with_one = len(one.inference)
    with_other = len(other.inference)
    one.__exit__()
    try:
        told = [house.ask("twin") for _ in range(6)]
        lacking = httpx.get(f"{house.gateway.url}/readyz", timeout=SOON, trust_env=False).json()
    finally:
        one.__enter__()

    assert [each.status_code for each in told] == [200] * 6
    assert (len(one.inference) - with_one, len(other.inference) - with_other) == (0, 6)
    assert lacking["status"] == "ok"
    assert lacking.get("backends", {}).get("one", ["trust"])[-1] in ("trust", "reach")

    def is_asked_again() -> bool:
        house.ask("twin")
        return len(one.inference) > with_one

    assert wait_until(is_asked_again, SOON)


def test_a_request_that_was_sent_goes_nowhere_else(house: House):
    """The twin has the model, too; but who knows what the first has done."""
    one, other = house.twins
    scripts = raw()
    one.scripts["/api/chat"] = other.scripts["/api/chat"] = scripts
    before = len(one.inference) + len(other.inference)

    told = house.ask("twin")

    assert told.status_code == 502
    assert len(one.inference) + len(other.inference) == before + 1
    for twin in house.twins:
        heal(house.gateway.url, house.gateway.key, twin, "twin")


def test_probes_answer_while_everything_hangs(house: House):
    """G15: alive, ready and what is measured, while all that was asked hangs."""
    heal(house.gateway.url, house.gateway.key, house.mad, "mad")
    house.mad.scripts["/api/chat"] = hang()
    probed = [
        f"{house.gateway.url}/healthz",
        f"{house.gateway.url}/readyz",
        f"{house.gateway.ops_url}/metrics",
    ]

    async def run() -> list[int]:
        hung = asyncio.create_task(all_at_once(house, "mad", 4))
        await asyncio.sleep(0.2)
        async with httpx.AsyncClient(timeout=SOON, trust_env=False) as client:
            probes = [(await client.get(url)).status_code for url in probed * 5]
        assert not hung.done(), "they were not waited for"
        await hung
        return probes

    assert asyncio.run(run()) == [200] * 15


def test_a_stream_is_as_long_as_it_is(house: House):
    """G12: longer than any time for a phase; at night (FUZZ_FACTOR=40) eight minutes."""
    pieces = times(12) * 4
    words = [chunk(chat_frame(f" {number}")) for number in range(pieces)]
    house.small.scripts["/api/chat"] = raw(
        HEAD_OF_STREAM, *words, chunk(chat_frame(done=True)) + b"0\r\n\r\n", gap_s=0.25
    )

    with (
        house.gateway.client() as client,
        client.stream(
            "POST", "/api/chat", json={"model": "small", "messages": [{"role": "user", "content": "Hi"}]}
        ) as answered,
    ):
        frames = [json.loads(line) for line in answered.iter_lines()]

    assert len(frames) == pieces + 1
    assert frames[-1]["done"]
