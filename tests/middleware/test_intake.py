"""Intake: bodies bounded in size, in number and in time, before they are parsed."""

import asyncio
import json
import threading

import orjson
import pytest
from attrs import evolve

from gateway.errors import (
    AuditUnavailable,
    BodyTooLarge,
    BodyTooSlow,
    ClientLeft,
    Draining,
    InvalidRequest,
    MalformedRequest,
    Overloaded,
    UnsupportedMediaType,
)
from gateway.middleware.context import answer, open_exchange
from gateway.middleware.intake import BodyLimits, Intake, is_large, worked_on
from gateway.model import Exchange, RequestHead
from tests.asgi import FakeLifecycle, Rows, call, exchange, nobody, scope_of

LIMITS = BodyLimits(one_bytes=1000, all_bytes=2500, grace_s=5, min_bytes_per_s=1024, deadline_s=60)


async def accept(scope, receive, send):
    await answer(send, 200, b"")


def intake(limits: BodyLimits = LIMITS, app=accept, *, draining: bool = False, full: bool = False) -> Intake:
    return Intake(app, limits=limits, lifecycle=FakeLifecycle(draining), sinks=(Rows(is_full=full),))


async def taken(layer: Intake, body=b"{}", path: str = "/api/chat", **headers: str) -> Exchange:
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    given = exchange(path=path, head=RequestHead(fields))
    scope = scope_of()
    open_exchange(scope, given)
    await call(layer, scope=scope, body=body)
    return given


async def pieces(*parts: bytes):
    for part in parts:
        yield part


async def test_the_body_is_parsed_once_for_the_layers_below():
    given = await taken(intake(), b'{"model": "m"}')

    assert given.body == {"model": "m"}
    assert given.bytes_in == 14


async def test_a_body_in_pieces_is_joined():
    assert (await taken(intake(), pieces(b'{"mod', b'el": "m"}'))).body == {"model": "m"}


TEXT = "x" * 300_000
LARGE = [
    pytest.param(orjson.dumps({"a": TEXT}), False, id="one text"),
    pytest.param(orjson.dumps({"a": [[TEXT], *[0] * 4_093]}), False, id="4,096 values"),
    pytest.param(orjson.dumps({"a": [[TEXT], *[0] * 4_094]}), True, id="4,097 values"),
    pytest.param(json.dumps({"a": TEXT}).encode(), False, id="one text, spaced"),
]


@pytest.mark.parametrize(("data", "is_heavy"), LARGE)
async def test_a_large_body_is_heavy_work_where_it_has_many_values(data: bytes, is_heavy: bool):
    """Texts are read in one call, which holds the interpreter in a thread as it does here."""
    limits = evolve(LIMITS, one_bytes=10_000_000, all_bytes=10_000_000)

    given = await taken(intake(limits), data)

    assert given.body == json.loads(data)
    assert given.is_heavy is is_heavy


@pytest.mark.parametrize("wrong", [b'{"a":%b}' % (b"[" * 64 + b"]" * 64), b"[1]", b'{"a":1,"a":2}', b"null"])
async def test_a_large_body_is_proven_as_a_small_one_is(wrong: bytes):
    limits = evolve(LIMITS, one_bytes=10_000_000, all_bytes=10_000_000)

    with pytest.raises(InvalidRequest):
        await taken(intake(limits), wrong.replace(b"1", b'"%b"' % TEXT.encode()).ljust(300_000))
    with pytest.raises(InvalidRequest):
        await taken(intake(limits), wrong.replace(b"]" * 64, b'"%b"' % TEXT.encode() + b"]" * 64))


async def test_of_large_bodies_one_is_read_in_a_turn_of_the_loop():
    """Four that came at once held all others up for as long as it takes to read and send four."""
    loop, turn = asyncio.get_running_loop(), 0
    seen: list[int] = []
    limits = evolve(LIMITS, one_bytes=10_000_000, all_bytes=10_000_000)

    def count():
        nonlocal turn
        turn += 1
        if len(seen) < 4:
            loop.call_soon(count)

    async def note(scope, receive, send):
        seen.append(turn)
        await accept(scope, receive, send)

    count()
    layer = intake(limits, note)
    await asyncio.gather(*(taken(layer, orjson.dumps({"a": TEXT})) for _ in range(4)))

    assert len(set(seen)) == 4


async def test_a_small_body_is_never_heavy():
    """A thread costs more than what it would take over."""
    limits = evolve(LIMITS, one_bytes=10_000_000, all_bytes=10_000_000)

    assert not (await taken(intake(limits), orjson.dumps({"a": [0] * 100_000}))).is_heavy


async def test_the_bytes_of_a_body_are_let_go_before_it_is_answered():
    """A thousand answers that last minutes would hold a thousand prompts twice."""
    gone = []

    class Bytes(bytes):
        def __del__(self):
            gone.append(bytes(self))

    async def look(scope, receive, send):
        assert gone == [b'{"a":1}']
        await accept(scope, receive, send)

    scope = scope_of()
    open_exchange(scope, exchange(path="/api/chat"))
    scope["extensions"] = {"gateway.rest_of_body": lambda: Bytes(b'{"a":1}'), **scope.get("extensions", {})}
    await call(intake(app=look), scope=scope)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff"])
async def test_what_is_no_strict_json_object_is_refused(body: bytes):
    with pytest.raises(InvalidRequest):
        await taken(intake(), body)


async def test_a_declared_length_over_the_cap_is_refused_unread():
    read = []

    async def body():
        read.append(1)
        yield b"{}"

    with pytest.raises(BodyTooLarge):
        await taken(intake(), body(), content_length="1001")

    assert read == []


async def test_an_undeclared_body_is_cut_at_the_cap():
    """Endless chunks end at the cap, not at the end of memory."""
    read = []

    async def endless():
        while True:
            read.append(1)
            yield b"x" * 400

    with pytest.raises(BodyTooLarge):
        await taken(intake(), endless())

    assert len(read) == 3


@pytest.mark.parametrize("length", ["-1", "+4", "0x4", "4, 4", "x", "\u0664"])
async def test_a_length_that_is_no_number_is_malformed(length: str):
    with pytest.raises(MalformedRequest):
        await taken(intake(), content_length=length)


async def test_all_bodies_together_are_bounded():
    """Ten thousand bodies below the cap would fill the memory too; what ends gives its share back."""
    layer = intake()
    layer.held_bytes = 2000

    with pytest.raises(Overloaded):
        await taken(layer, content_length="600")
    with pytest.raises(Overloaded):
        await taken(layer, pieces(b"x" * 600))
    await taken(layer, b"{}" + b" " * 400)

    assert layer.held_bytes == 2000


async def at_hand(layer: Intake, body: bytes) -> Exchange:
    """As `taken`, from a server that has all of the body already."""
    given = exchange(path="/api/chat")
    scope = scope_of() | {"extensions": {"gateway.rest_of_body": lambda: body}}
    open_exchange(scope, given)

    async def unasked():
        raise AssertionError("the server was asked for what it has given")

    async def send(_message):
        pass

    await layer(scope, unasked, send)
    return given


async def test_a_body_that_the_server_has_is_not_waited_for():
    layer = intake()

    given = await at_hand(layer, b'{"model": "m"}')

    assert (given.body, given.bytes_in, layer.held_bytes) == ({"model": "m"}, 14, 0)


@pytest.mark.parametrize(("held", "error"), [(0, BodyTooLarge), (2000, Overloaded)])
async def test_a_body_that_the_server_has_is_bounded_alike(held: int, error: type[Exception]):
    layer = intake()
    layer.held_bytes = held

    with pytest.raises(error):
        await at_hand(layer, b" " * (1001 if error is BodyTooLarge else 600))

    assert layer.held_bytes == held


async def test_a_body_that_trickles_is_refused():
    """I2: one byte a second for ever. The rate counts from the end of a grace."""
    trickle = asyncio.Event()

    async def slow():
        yield b"{"
        await trickle.wait()

    with pytest.raises(BodyTooSlow):
        await taken(intake(evolve(LIMITS, grace_s=0.01)), slow())


@pytest.mark.parametrize(
    ("received", "wait_s"), [(0, 5), (1024, 6), (10 * 1024, 15), (1024 * 1024, 60)], ids=str
)
def test_patience_grows_with_what_has_come_up_to_a_deadline(received: int, wait_s: float):
    assert LIMITS.wait_s(received) == wait_s


async def test_a_client_that_leaves_while_sending_ends_the_request():
    layer = intake()
    given = exchange()
    scope = scope_of()
    open_exchange(scope, given)

    async def receive():
        return {"type": "http.disconnect"}

    with pytest.raises(ClientLeft):
        await layer(scope, receive, nobody)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json; charset="UTF-8"',
        "application/vnd.api+json",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "text/plain",
        "APPLICATION/JSON",
    ],
)  # fmt: skip
async def test_types_that_clients_send_json_under_pass(content_type: str):
    """`curl -d` says form; what counts is that the body is one strict JSON object."""
    assert (await taken(intake(), content_type=content_type)).body == {}


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "image/png"},
        {"content_type": "application/json; charset=utf-16"},
        {"content_encoding": "gzip"},
        {"content_encoding": "zstd"},
    ],
)
async def test_other_types_and_encodings_are_refused(headers: dict[str, str]):
    with pytest.raises(UnsupportedMediaType):
        await taken(intake(), **headers)


async def test_new_work_is_refused_while_draining():
    with pytest.raises(Draining):
        await taken(intake(draining=True))


async def test_nothing_passes_unaudited():
    """With no room for another row, no new work begins."""
    with pytest.raises(AuditUnavailable):
        await taken(intake(full=True))


async def test_operations_without_a_body_pass_unread():
    """Lists are answered also while draining."""
    given = exchange(method="GET", path="/api/tags")
    scope = scope_of()
    open_exchange(scope, given)

    async def unread():
        raise AssertionError("the body was read")

    sent = []

    async def send(message):
        sent.append(message)

    await intake(draining=True)(scope, unread, send)

    assert sent[0]["status"] == 200


@pytest.mark.parametrize(("is_heavy", "is_here"), [(False, True), (True, False)])
async def test_heavy_work_leaves_the_loop_to_others(is_heavy: bool, is_here: bool):
    """One caller's 20 MB of tool calls held all others up for six seconds."""
    thread = await worked_on(is_heavy, threading.get_ident)

    assert (thread == threading.get_ident()) is is_here


@pytest.mark.parametrize(("size", "expected"), [(256 * 1024, False), (256 * 1024 + 1, True)])
def test_a_quarter_of_a_megabyte_is_not_large(size: int, expected: bool):
    assert is_large(size) is expected
