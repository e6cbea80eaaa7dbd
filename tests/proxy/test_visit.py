"""A request's stay at a backend: where it goes, when it goes elsewhere, and what is learned of that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import define, evolve

from gateway.accounting import PromptSize
from gateway.config import BackendConfig
from gateway.errors import (
    BackendBusy,
    BackendFailed,
    BackendTimeout,
    BackendUnreachable,
    ConnectTimeout,
    ContextLengthExceeded,
    GatewayError,
    QueueFull,
)
from gateway.model import ModelCard
from gateway.proxy import queue as queue_module
from gateway.proxy import visit as visit_module
from gateway.proxy.router import Router
from gateway.proxy.visit import Visit
from gateway.rules.breaker import FAILURES, FIRST_REST_S, BreakerState
from gateway.rules.routing import LOAD_S
from tests.asgi import FakeClock, exchange
from tests.proxy.doubles import BOUNDS, OfferedBy, router_of, ticket, visit_at

SOON = 30


@define(eq=False)
class Named:
    """A backend that nobody has to speak to."""

    name: str
    kind: str = "ollama"
    held: int = 0

    def hold(self) -> None:
        self.held += 1

    def let_go(self) -> None:
        self.held -= 1


A: Any = Named("a")
B: Any = Named("b")


@asynccontextmanager
async def suppressed(error: BaseException) -> AsyncIterator[None]:
    try:
        yield
    except BaseException as raised:
        if raised is not error:
            raise


async def visited(visit: Visit, error: BaseException | None = None, *, is_sent: bool = True) -> str:
    """The backend that it was at; it ends with this error."""
    async with suppressed(error or AssertionError()), visit:
        if is_sent:
            visit.sent(is_whole=False)
        if error is not None:
            raise error
    return str(visit.backend.name)


def state_of(router: Router, name: str) -> Any:
    return next(state for state in router.states() if state.name == name)


# ── which backend ────────────────────────────────────────────────────────────────────────


async def test_warm_goes_before_cold():
    catalogue = OfferedBy([A, B], warm={"b"})

    found = await router_of([A, B], catalogue=catalogue).find("m")

    assert found is not None
    assert found[0] is B


async def test_of_warm_ones_the_one_with_a_free_slot():
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a", "b"}), slots=1)

    async with visit_at(A, router=router):
        found = await router.find("m")

    assert found is not None
    assert found[0] is B


async def test_of_equals_the_least_busy_for_its_weight():
    """b may have three times the work of a."""
    router = router_of([A, B])
    router.set_backends([(A, BackendConfig("a", "http://a")), (B, BackendConfig("b", "http://b", weight=3))])
    at = []
    for _ in range(8):
        found = await router.find("m")
        assert found is not None
        visit = visit_at(found[0], router=router)
        await visit.__aenter__()
        at.append(found[0].name)

    assert sorted(at) == ["a"] * 2 + ["b"] * 6


async def test_a_model_that_nobody_has():
    assert await router_of([], catalogue=OfferedBy([])).find("m") is None


async def test_the_choice_is_looked_at_again_when_it_is_full():
    """The request was for a, where meanwhile no slot is free; b has one, and is as good."""
    router = router_of([A, B], slots=1)

    async with visit_at(A, router=router):
        assert await visited(visit_at(A, router=router)) == "b"


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(ModelCard("m:latest", context=4096), id="another context"),
        pytest.param(ModelCard("m:latest", own=PromptSize(text_bytes=9000)), id="more before each prompt"),
        pytest.param(ModelCard("m:latest", capabilities=frozenset({"completion"})), id="thinks not"),
        pytest.param(None, id="another kind"),
    ],
)
async def test_what_was_reserved_for_one_holds_for_its_like_only(other: ModelCard | None):
    """A prompt that was bounded by a small context could cost more elsewhere."""
    b = Named("b", "ollama" if other else "openai")
    catalogue = OfferedBy([A, b], cards={"b": other or ModelCard("m:latest")})
    router = router_of([A, b], catalogue=catalogue, slots=1, bounds=evolve(BOUNDS, max_waiting=1))

    async with visit_at(A, router=router):
        waits = visit_at(A, router=router)
        entering = asyncio.create_task(waits.__aenter__())
        await asyncio.sleep(0)
        assert waits.position() == 1
        entering.cancel()


async def test_a_backend_is_held_from_the_slot_to_the_end():
    """Between two parts of a call no answer is under way: a reload must not close it there."""
    a, b = Named("a"), Named("b")
    router = router_of([a, b])
    visit = visit_at(a, router=router)

    async with visit:
        assert (a.held, b.held) == (1, 0)
        visit.sent(is_whole=False)
        assert await visit.elsewhere(BackendUnreachable("x"))
        assert (a.held, b.held) == (0, 1)

    assert (a.held, b.held) == (0, 0)


async def test_a_backend_that_is_waited_for_is_held_once_the_slot_is_there():
    a = Named("a")
    router = router_of([a], slots=1)
    waits = visit_at(a, router=router)
    async with visit_at(a, router=router):
        entering = asyncio.create_task(waits.__aenter__())
        await asyncio.sleep(0)
        assert a.held == 1
    await asyncio.wait_for(entering, SOON)
    assert a.held == 1

    await waits.__aexit__(None, None, None)
    assert a.held == 0


async def test_where_too_many_run_others_are_asked(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(queue_module, "MAX_UNSLOTTED", 1)
    router = router_of([A, B])

    async with visit_at(A, router=router):
        second = visit_at(A, router=router)
        async with second:
            assert second.backend is B
            with pytest.raises(BackendBusy):
                await visit_at(A, router=router).__aenter__()


@pytest.mark.parametrize(("error", "hangs"), [(BackendTimeout("x"), True), (asyncio.CancelledError(), False)])
async def test_a_model_hangs_that_was_given_up_not_one_whose_caller_left(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, hangs: bool
):
    """Then the next request for it leaves its slot to another model's."""
    monkeypatch.setattr(visit_module, "ABORT_HOLD_S", 0.0)
    clock = FakeClock()
    router = router_of([A], clock=clock, slots=1)
    router.seen(A, frozenset(["m:latest", "other:latest"]))
    visit = visit_at(A, router=router)
    await visit.__aenter__()
    visit.sent(is_whole=False)
    clock.monotonic += 2 * BOUNDS.turn_s
    await visit.__aexit__(type(error), error, None)
    again = visit_at(A, router=router)
    await again.__aenter__()
    again.sent(is_whole=False)

    station = router.station_of(A)
    assert station is not None
    assert station.queue.enter_at_once(ticket(model="other:latest")) is hangs


# ── elsewhere ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("error", [BackendUnreachable("x"), ConnectTimeout("x")], ids=["refused", "too slow"])
async def test_what_was_not_sent_goes_elsewhere(error: GatewayError):
    router = router_of([A, B])
    visit = visit_at(A, router=router)

    async with visit:
        visit.sent(is_whole=False)
        assert await visit.elsewhere(error)
        assert visit.backend is B
        assert (state_of(router, "a").running, state_of(router, "b").running) == (0, 1)

    assert state_of(router, "b").running == 0


@pytest.mark.parametrize("error", [BackendFailed("x"), BackendTimeout("x"), BackendBusy("x")])
async def test_what_was_sent_is_never_sent_again(error: GatewayError):
    """It may have been acted on."""
    visit = visit_at(A, router=router_of([A, B]))

    async with visit:
        visit.sent(is_whole=False)
        assert not await visit.elsewhere(error)
        assert visit.backend is A


async def test_each_is_tried_once_and_then_it_is_told():
    visit = visit_at(A, router=router_of([A, B]))
    async with visit:
        assert await visit.elsewhere(BackendUnreachable("x"))
        assert not await visit.elsewhere(BackendUnreachable("x"))


# ── breakers ─────────────────────────────────────────────────────────────────────────────


async def failing(router: Router, error: BaseException, model: str = "m:latest") -> None:
    for _ in range(FAILURES):
        await visited(visit_at(A, router=router, given=ticket(model=model)), error)


async def test_a_backend_that_is_not_reached_is_left_alone_and_then_tried_with_one():
    clock = FakeClock()
    router = router_of([A], clock=clock)
    await failing(router, BackendUnreachable("x"))
    assert state_of(router, "a").breaker is BreakerState.OPEN

    with pytest.raises(BackendFailed, match="again and again") as caught:
        await visit_at(A, router=router).__aenter__()
    assert caught.value.retry_after_s == FIRST_REST_S

    clock.monotonic += FIRST_REST_S
    probe = visit_at(A, router=router)
    async with probe:
        probe.sent(is_whole=False)
        with pytest.raises(BackendFailed):
            await visit_at(A, router=router, given=ticket(model="other")).__aenter__()

    assert state_of(router, "a").breaker is BreakerState.CLOSED


@pytest.mark.parametrize("error", [BackendUnreachable("x"), BackendTimeout("x")], ids=["link", "model"])
async def test_a_probe_that_is_answered_lets_others_in_before_it_ends(error: GatewayError):
    """Its answer may be a stream of minutes, and its reader slow."""
    clock = FakeClock()
    router = router_of([A], clock=clock)
    await failing(router, error)
    clock.monotonic += FIRST_REST_S

    probe = visit_at(A, router=router)
    async with probe:
        probe.sent(is_whole=False)
        probe.heard()

        assert (state_of(router, "a").breaker, state_of(router, "a").broken_models) == ("closed", ())
        assert await visited(visit_at(A, router=router)) == "a"


async def test_what_was_sent_before_the_breaker_opened_does_not_judge_the_probe():
    """One that had begun before ends while the probe is out: others are still kept away, whatever its end."""
    clock = FakeClock()
    router = router_of([A], clock=clock)
    early = [visit_at(A, router=router) for _ in range(3)]
    for one in early:
        await one.__aenter__()
        one.sent(is_whole=False)
    await failing(router, BackendTimeout("x"))
    clock.monotonic += FIRST_REST_S
    probe = visit_at(A, router=router)
    await probe.__aenter__()
    probe.sent(is_whole=False)

    early[0].heard()
    await early[0].__aexit__(None, None, None)
    await early[1].__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)
    await early[2].__aexit__(BackendTimeout, BackendTimeout("x"), None)

    with pytest.raises(BackendFailed):
        await visit_at(A, router=router).__aenter__()
    await probe.__aexit__(None, None, None)
    assert state_of(router, "a").broken_models == ()


@pytest.mark.parametrize("error", [BackendTimeout("x"), BackendFailed("x")], ids=["hangs", "breaks off"])
async def test_a_model_that_fails_says_nothing_of_the_others(error: GatewayError):
    router = router_of([A])

    await failing(router, error, model="bad:latest")

    assert state_of(router, "a").broken_models == ("bad:latest",)
    with pytest.raises(BackendFailed):
        await visit_at(A, router=router, given=ticket(model="bad:latest")).__aenter__()
    assert await visited(visit_at(A, router=router)) == "a"


async def test_where_one_backend_fails_another_is_asked():
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a"}))

    await failing(router, BackendTimeout("x"))

    found = await router.find("m")
    assert found is not None
    assert found[0] is B
    assert await visited(visit_at(A, router=router)) == "b"


async def test_a_busy_backend_is_told_as_busy():
    """503, with a time to come back, also by the breaker."""
    router = router_of([A])
    await failing(router, BackendBusy("x"))

    with pytest.raises(BackendBusy) as caught:
        await visit_at(A, router=router).__aenter__()

    assert caught.value.retry_after_s == FIRST_REST_S


@pytest.mark.parametrize("is_answered", [False, True], ids=["answers with an error", "breaks off its answer"])
async def test_what_a_caller_may_have_provoked_blocks_nobody(is_answered: bool):
    """But where another backend has the model, that is asked for a while."""
    clock = FakeClock()
    router = router_of([A, B], clock=clock)
    for _ in range(10):
        visit = visit_at(A, router=router)
        error = BackendFailed("x")
        async with suppressed(error), visit:
            visit.sent(is_whole=False)
            visit.heard() if is_answered else visit.complained(error)
            raise error

    assert state_of(router, "a").broken_models == ()
    assert await visited(visit_at(A, router=router_of([A]))) == "a"
    found = await router.find("m")
    assert found is not None
    assert found[0] is B
    clock.monotonic += 60
    found = await router.find("m")
    assert found is not None
    assert found[0] is A


@pytest.mark.parametrize(
    ("error", "is_sent"),
    [
        pytest.param(asyncio.CancelledError(), True, id="its caller left"),
        pytest.param(ContextLengthExceeded("x"), False, id="it was never sent"),
    ],
)
async def test_what_tells_nothing_changes_nothing(error: BaseException, is_sent: bool):
    """Neither does it count as a failure, nor does it end what was counted."""
    router = router_of([A])
    for _ in range(FAILURES - 1):
        await visited(visit_at(A, router=router), BackendTimeout("x"))

    await visited(visit_at(A, router=router), error, is_sent=is_sent)
    assert state_of(router, "a").broken_models == ()

    await visited(visit_at(A, router=router), BackendTimeout("x"))
    assert state_of(router, "a").broken_models == ("m:latest",)


async def test_a_refusal_of_the_caller_s_request_is_a_sign_of_life():
    router = router_of([A])
    for _ in range(FAILURES):
        await visited(visit_at(A, router=router), BackendTimeout("x"))
        await visited(visit_at(A, router=router), ContextLengthExceeded("x"))

    assert state_of(router, "a").broken_models == ()


async def test_a_backend_that_tells_its_models_can_be_reached():
    """Discovery finds out sooner than a probe would."""
    router = router_of([A])
    await failing(router, BackendUnreachable("x"))

    router.seen(A, frozenset())

    assert state_of(router, "a").breaker is BreakerState.CLOSED


# ── in line ──────────────────────────────────────────────────────────────────────────────


async def test_who_waited_is_told_so():
    clock, noted = FakeClock(), exchange()
    router = router_of([A], clock=clock, slots=1)
    visit = visit_at(A, router=router, noted=noted)
    async with visit_at(A, router=router):
        entering = asyncio.create_task(visit.__aenter__())
        await asyncio.sleep(0)
        assert visit.position() == 1
        assert visit.headers() == [(b"x-queue-position", b"1")]
        clock.monotonic += 2.5
    await asyncio.wait_for(entering, SOON)

    assert visit.position() is None
    assert visit.headers() == [(b"x-queue-position", b"1"), (b"x-queue-wait-ms", b"2500")]
    assert noted.queued_s == 2.5


async def test_who_did_not_wait_is_told_nothing():
    noted = exchange()
    visit = visit_at(A, router=router_of([A], slots=1), noted=noted)
    async with visit:
        assert visit.headers() == []
    assert noted.queued_s is None


async def test_a_refusal_by_the_queue_tells_where_it_would_have_stood():
    noted, router = exchange(), router_of([A], slots=1, bounds=evolve(BOUNDS, max_waiting=0))

    async with visit_at(A, router=router):
        with pytest.raises(QueueFull):
            await visit_at(A, router=router, noted=noted).__aenter__()

    assert noted.headers == [(b"x-queue-position", b"1")]


async def test_who_waits_for_what_then_fails_is_told_at_once():
    """Not one after another, each after its own time."""
    router = router_of([A], slots=1)
    runs = visit_at(A, router=router)
    await runs.__aenter__()
    station = router.station_of(A)
    assert station is not None
    waits = [asyncio.create_task(visit_at(A, router=router).__aenter__()) for _ in range(3)]
    await asyncio.sleep(0)
    for _ in range(FAILURES):
        given = station.try_pass("m:latest", 100.0)
        assert given is not None
        station.broke(given, 100.0, is_busy=False)

    runs.sent(is_whole=False)
    await runs.__aexit__(BackendFailed, BackendFailed("x"), None)
    await asyncio.wait(waits, timeout=SOON)

    assert all(isinstance(wait.exception(), BackendFailed) for wait in waits)
    assert state_of(router, "a").running == 0


async def test_a_slot_is_kept_while_a_prompt_is_read_for_nobody(monkeypatch: pytest.MonkeyPatch):
    """Leaving is no way around the slots: a server that reads a prompt does not look who is there."""
    monkeypatch.setattr(visit_module, "ABORT_HOLD_S", 0.05)
    clock, noted = FakeClock(), exchange()
    router = router_of([A], clock=clock, slots=1)
    left = visit_at(A, router=router, noted=noted)
    await left.__aenter__()
    left.sent(is_whole=False)
    clock.monotonic += 2

    await left.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)

    assert state_of(router, "a").running == 1
    assert noted.busy_s == 0.05, "its tenant's place among those at the same time is kept as well"
    async with asyncio.timeout(SOON), visit_at(A, router=router):
        assert state_of(router, "a").running == 1


@pytest.mark.parametrize("is_answered", [True, False])
async def test_a_slot_is_free_at_once_where_the_backend_is(is_answered: bool):
    """It writes, so it sees that nobody is there; or nothing was sent."""
    router = router_of([A], slots=1)
    visit = visit_at(A, router=router)
    await visit.__aenter__()
    if is_answered:
        visit.sent(is_whole=False)
        visit.heard()

    await visit.__aexit__(asyncio.CancelledError, asyncio.CancelledError(), None)

    assert state_of(router, "a").running == 0


@pytest.mark.parametrize("error", [BackendUnreachable("x"), ConnectTimeout("x")], ids=["refused", "too slow"])
async def test_a_slot_is_free_at_once_where_no_connection_came_about(error: GatewayError):
    """However long it took to find out: the backend is not at work on what it never got."""
    clock, noted = FakeClock(), exchange()
    router = router_of([A], clock=clock, slots=1)
    visit = visit_at(A, router=router, noted=noted)
    await visit.__aenter__()
    visit.sent(is_whole=False)
    clock.monotonic += 3

    await visit.__aexit__(type(error), error, None)

    assert (state_of(router, "a").running, noted.busy_s) == (0, 0.0)


async def test_after_a_load_the_backend_is_asked_what_it_holds():
    catalogue = OfferedBy([A])
    router = router_of([A], catalogue=catalogue, slots=2)
    for _ in range(2):
        visit = visit_at(A, router=router)
        async with visit:
            visit.sent(is_whole=False)
            visit.heard()
            visit.heard()
            visit.loaded_in(4_000_000_000)

    assert catalogue.asked_loaded == ["a"]
    station = router.station_of(A)
    assert station is not None
    assert station.load_s("m:latest") == 4.0


# ── in several lines ─────────────────────────────────────────────────────────────────────


class LoopClock:
    """The event loop's own."""

    def now(self) -> float:
        return 0.0

    def elapsed(self) -> float:
        return asyncio.get_running_loop().time()


@pytest.fixture
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "LOOK_AGAIN_S", 0.01)


def configured(*backends: Named, **options: Any) -> list[Any]:
    return [(one, BackendConfig(one.name, f"http://{one.name}", **options)) for one in backends]


async def at(router: Router, *backends: Any, model: str = "m:latest") -> list[Visit]:
    """One that runs at each of these."""
    visits = []
    for backend in backends:
        visits.append(visit_at(backend, router=router, given=ticket("runs", model=model)))
        await visits[-1].__aenter__()
        assert visits[-1].backend is backend
        visits[-1].sent(is_whole=False)
    return visits


async def ended(visit: Visit) -> None:
    await visit.__aexit__(None, None, None)


async def entering(visit: Visit) -> "asyncio.Task[Visit]":
    """One that waits by now."""
    task = asyncio.create_task(visit.__aenter__())
    await asyncio.sleep(0)
    assert not task.done()
    return task


async def test_who_waits_is_served_by_whichever_is_free_first():
    """It has its place at one backend, and stands in both lines; the other one is free first."""
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a", "b"}), slots=1)
    at_a, at_b = await at(router, A, B)
    waits = visit_at(A, router=router)
    task = await entering(waits)
    assert [(state.running, state.waiting) for state in router.states()] == [(1, 1), (1, 0)]
    assert waits.headers() == [(b"x-queue-position", b"1")]

    await ended(at_b)
    await asyncio.wait_for(task, SOON)

    assert waits.backend is B
    assert [(state.running, state.waiting) for state in router.states()] == [(1, 0), (1, 0)]
    await ended(at_a)
    assert state_of(router, "a").running == 0, "it has left the other line, and has no second slot"
    await ended(waits)
    assert state_of(router, "b").running == 0


async def test_the_shares_hold_wherever_it_is_served():
    """Whoever comes behind many is next but one at each backend."""
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a", "b"}), slots=1)
    at_a, at_b = await at(router, A, B)
    many = [visit_at(A, router=router, given=ticket("many")) for _ in range(6)]
    tasks = [await entering(one) for one in many]
    single = visit_at(B, router=router, given=ticket("single"))
    served = await entering(single)

    await ended(at_a)
    await asyncio.wait_for(tasks[0], SOON)
    assert many[0].backend is A
    await ended(many[0])

    await asyncio.wait_for(served, SOON)
    assert [task.done() for task in tasks].count(True) == 1
    await ended(at_b)
    await asyncio.wait_for(tasks[1], SOON)
    assert (single.backend, many[1].backend) == (A, B)
    for task in tasks:
        task.cancel()


async def test_both_are_free_at_once_and_nothing_runs_twice():
    """In one turn of the loop, before the one that waits has come to see it."""
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a", "b"}), slots=1)
    running = await at(router, A, B)
    waits = visit_at(A, router=router)
    task = await entering(waits)

    for one in running:
        await ended(one)
    await asyncio.wait_for(task, SOON)

    assert sum(state.running for state in router.states()) == 1


async def test_who_leaves_stands_in_no_line_any_more():
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a", "b"}), slots=1)
    running = await at(router, A, B)
    task = await entering(visit_at(A, router=router))

    task.cancel()
    await asyncio.wait([task])
    for one in running:
        await ended(one)

    assert [(state.running, state.waiting) for state in router.states()] == [(0, 0), (0, 0)]


@pytest.mark.usefixtures("looks_often")
@pytest.mark.parametrize("how", ["comes back", "is no longer drained", "has loaded it", "is new"])
async def test_a_backend_that_becomes_fit_serves_who_waits_elsewhere(how: str):
    catalogue = OfferedBy([A, B], warm={"a", "b"})
    router = router_of([A, B], catalogue=catalogue, slots=1)
    if how == "comes back":
        catalogue.is_up["b"] = False
    elif how == "is no longer drained":
        router.set_backends([*configured(A, slots=1), *configured(B, slots=1, is_draining=True)])
    elif how == "has loaded it":
        catalogue.warm.remove("b")
    else:
        catalogue.backends = [A]
        router.set_backends(configured(A, slots=1))
    await at(router, A)
    waits = visit_at(A, router=router)
    task = asyncio.create_task(waits.__aenter__())
    await asyncio.sleep(0.05)
    assert not task.done()

    catalogue.is_up["b"] = True
    catalogue.warm.add("b")
    catalogue.backends = [A, B]
    router.set_backends([*configured(A, slots=1), *configured(B, slots=1)])

    await asyncio.wait_for(task, SOON)
    assert waits.backend is B


@pytest.mark.usefixtures("looks_often")
async def test_a_load_is_worth_it_once_one_has_waited_for_as_long():
    """Sooner, and each short wait would cost a load."""
    clock = FakeClock()
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a"}), clock=clock, slots=1)
    await at(router, A)
    waits = visit_at(A, router=router)
    task = await entering(waits)
    clock.monotonic += LOAD_S - 1
    await asyncio.sleep(0.05)
    assert not task.done()

    clock.monotonic += 1

    await asyncio.wait_for(task, SOON)
    assert waits.backend is B


@pytest.mark.usefixtures("looks_often")
async def test_of_those_that_wait_one_tries_a_backend_that_had_failed():
    """The others keep their places until it is known to work, and then go there as well."""
    clock = FakeClock()
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a", "b"}), clock=clock, slots=1)
    station = router.station_of(B)
    assert station is not None
    for _ in range(FAILURES):
        given = station.try_pass("m:latest", 100.0)
        assert given is not None
        station.broke(given, clock.elapsed(), is_busy=False)
    await at(router, A)
    visits = [visit_at(A, router=router) for _ in range(3)]
    tasks = [asyncio.create_task(visit.__aenter__()) for visit in visits]
    await asyncio.sleep(0.05)
    assert state_of(router, "a").waiting == 3

    clock.monotonic += FIRST_REST_S
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=SOON)
    await asyncio.sleep(0.05)

    assert [task.done() for task in tasks].count(True) == 1
    assert state_of(router, "a").waiting == 2
    probe = next(visit for visit, task in zip(visits, tasks, strict=True) if task.done())
    assert probe.backend is B
    probe.sent(is_whole=False)
    probe.heard()
    await ended(probe)
    await asyncio.wait(
        [task for task in tasks if not task.done()], return_when="FIRST_COMPLETED", timeout=SOON
    )
    assert (state_of(router, "a").waiting, state_of(router, "b").running) == (1, 1)
    for task in tasks:
        task.cancel()


async def test_who_had_a_place_is_not_refused_another():
    """Its backend goes, and the queue of the one that is left is full: it waits there all the same."""
    catalogue = OfferedBy([A, B], warm={"a"})
    router = router_of([A, B], catalogue=catalogue, slots=1, bounds=evolve(BOUNDS, max_waiting=1))
    at_a, at_b = await at(router, A, B)
    waits, other = visit_at(A, router=router), visit_at(B, router=router)
    task = await entering(waits)
    catalogue.warm = {"b"}
    also = await entering(other)
    assert [state.waiting for state in router.states()] == [1, 1]

    catalogue.backends = [B]
    router.set_backends(configured(B, slots=1))
    await asyncio.sleep(0)
    for visit, comes in ((at_b, also), (other, task)):
        await ended(visit)
        await asyncio.wait_for(comes, SOON)

    assert (waits.backend, other.backend) == (B, B)
    await ended(at_a)


async def test_where_it_stands_is_told_of_the_line_where_that_is_best():
    catalogue = OfferedBy([A, B], warm={"a"})
    router = router_of([A, B], catalogue=catalogue, slots=1)
    await at(router, A, B)
    tasks = [await entering(visit_at(A, router=router)) for _ in range(3)]
    catalogue.warm = {"a", "b"}

    waits = visit_at(A, router=router)
    tasks.append(await entering(waits))

    assert waits.position() == 1
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(("patience_s", "told"), [(0.01, "0.01"), (0.0, "0"), (60.0, "0.05"), (None, "0.05")])
async def test_who_has_waited_for_as_long_as_it_may_is_told(patience_s: float | None, told: str):
    """As long as the operator says, or less where its caller wants so; 0 is not at all."""
    router = router_of([A], clock=LoopClock(), slots=1, bounds=evolve(BOUNDS, max_wait_s=0.05))
    await at(router, A)

    with pytest.raises(QueueFull, match=f"within {told} s") as caught:
        await asyncio.wait_for(
            visit_at(A, router=router, given=ticket("t2", patience_s=patience_s)).__aenter__(), SOON
        )

    assert caught.value.retry_after_s == 1
    assert state_of(router, "a").waiting == 0


# ── backends come and go ─────────────────────────────────────────────────────────────────


async def test_who_waits_at_a_backend_that_goes_waits_elsewhere():
    catalogue = OfferedBy([A, B], warm={"a"})
    router = router_of([A, B], catalogue=catalogue, slots=1)
    runs = visit_at(A, router=router)
    await runs.__aenter__()
    also = visit_at(B, router=router)
    await also.__aenter__()
    waits = visit_at(A, router=router)
    entering = asyncio.create_task(waits.__aenter__())
    await asyncio.sleep(0)
    assert state_of(router, "a").waiting == 1

    catalogue.backends = [B]
    router.set_backends(configured(B, slots=2))

    await asyncio.wait_for(entering, SOON)
    assert waits.backend is B
    await runs.__aexit__(None, None, None)
    assert [state.name for state in router.states()] == ["b"]


async def test_a_draining_backend_gets_nothing_new_and_finishes_what_runs():
    router = router_of([A, B], catalogue=OfferedBy([A, B], warm={"a"}))
    runs = visit_at(A, router=router)
    await runs.__aenter__()

    router.set_backends([*configured(A, is_draining=True), *configured(B)])

    assert await visited(visit_at(A, router=router)) == "b"
    await runs.__aexit__(None, None, None)


async def test_where_only_a_draining_backend_has_it_the_caller_is_told():
    router = router_of([A])
    router.set_backends(configured(A, is_draining=True))

    with pytest.raises(BackendBusy, match="out of service"):
        await visit_at(A, router=router).__aenter__()


async def test_a_drained_backend_that_stays_after_all_is_asked_again():
    router = router_of([A], slots=1)
    router.set_backends(configured(A, slots=1, is_draining=True))
    router.set_backends(configured(A, slots=1))

    assert await visited(visit_at(A, router=router)) == "a"


async def test_what_runs_at_a_drained_backend_is_known_until_it_ends():
    """Whatever is read again meanwhile, and when the backend stays after all: it has no slots twice."""
    router = router_of([A], slots=1)
    runs = visit_at(A, router=router)
    await runs.__aenter__()

    for _ in range(2):
        router.set_backends(configured(A, slots=1, is_draining=True))
        assert state_of(router, "a").running == 1
    router.set_backends(configured(A, slots=1))
    waits = visit_at(A, router=router)
    entering = asyncio.create_task(waits.__aenter__())
    await asyncio.sleep(0)
    assert (state_of(router, "a").running, state_of(router, "a").waiting) == (1, 1)

    await runs.__aexit__(None, None, None)
    await asyncio.wait_for(entering, SOON)
    assert (state_of(router, "a").running, state_of(router, "a").waiting) == (1, 0)


async def test_what_stays_keeps_its_breakers_whatever_becomes_of_its_slots():
    router = router_of([A], slots=1)
    await failing(router, BackendUnreachable("x"))

    for slots in (2, None, 3):
        router.set_backends(configured(A, slots=slots))
        assert state_of(router, "a").slots == slots
        assert state_of(router, "a").breaker is BreakerState.OPEN


async def test_whoever_waits_when_there_are_no_slots_any_more_goes_at_once():
    """A reload takes `slots=` away: nobody is lost, and what ran is still known."""
    router = router_of([A], slots=1)
    running = (await at(router, A))[0]
    visits = [visit_at(A, router=router) for _ in range(3)]
    tasks = [await entering(visit) for visit in visits]

    router.set_backends(configured(A))
    await asyncio.wait(tasks, timeout=SOON)

    assert (state_of(router, "a").running, state_of(router, "a").waiting) == (4, 0)
    for visit in (running, *visits):
        await ended(visit)
    assert state_of(router, "a").running == 0


async def test_whoever_waits_when_there_are_no_slots_any_more_is_still_bounded(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(queue_module, "MAX_UNSLOTTED", 2)
    router = router_of([A], slots=1)
    await at(router, A)
    tasks = [await entering(visit_at(A, router=router)) for _ in range(2)]

    router.set_backends(configured(A))
    await asyncio.wait(tasks, timeout=SOON)

    assert isinstance(tasks[1].exception(), BackendBusy)
    assert state_of(router, "a").running == 2


async def test_what_runs_counts_when_there_are_slots_from_now_on():
    """A reload sets `slots=`: what was sent before has one, too, and who comes now waits for it."""
    router = router_of([A])
    running = await at(router, A, A)

    router.set_backends(configured(A, slots=2))
    waits = visit_at(A, router=router)
    task = await entering(waits)

    assert (state_of(router, "a").running, state_of(router, "a").waiting) == (2, 1)
    running[0].heard()
    await ended(running[0])
    await asyncio.wait_for(task, SOON)


async def test_another_server_by_the_same_name_begins_anew():
    router, other = router_of([A]), Named("a")
    await failing(router, BackendUnreachable("x"))

    router.set_backends(configured(other))

    assert state_of(router, "a").breaker is BreakerState.CLOSED
    assert router.station_of(A) is None
    router.seen(A, frozenset())


async def test_where_nobody_has_it_any_more_the_caller_is_told():
    catalogue = OfferedBy([A])
    router = router_of([A], catalogue=catalogue)
    catalogue.backends = []
    router.set_backends([])

    with pytest.raises(BackendFailed, match="is gone"):
        await visit_at(A, router=router).__aenter__()


async def test_a_queue_that_closes_in_between_lets_nobody_in():
    """The station was picked, and replaced in the same moment: the choice is made anew."""
    router = router_of([A, B], slots=1)
    station = router.station_of(A)
    assert station is not None
    station.queue.close()
    router.set_backends([*configured(A, is_draining=True), *configured(B, slots=1)])

    assert await visited(visit_at(A, router=router)) == "b"
