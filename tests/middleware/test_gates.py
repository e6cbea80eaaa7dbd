"""MutationBlock and Auth: who gets further down, and who does not."""

import pytest

from gateway.errors import MalformedRequest, MutationBlocked, RouteNotFound, StoreUnavailable, Unauthenticated
from gateway.middleware.auth import Auth
from gateway.middleware.context import open_exchange
from gateway.middleware.mutation_block import MutationBlock
from gateway.model import Exchange, Operation, RequestHead
from tests.asgi import PRINCIPAL, exchange, scope_of


class Passed:
    """The app below: remembers whether it was reached."""

    def __init__(self) -> None:
        self.reached = False

    async def __call__(self, scope, receive, send) -> None:
        self.reached = True


class Keys:
    """An Authenticator with one valid token."""

    is_cut_off = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def at_once(self, _token: str):
        return None

    async def principal_of(self, token: str, epoch: int = 0):
        self.asked.append(token)
        if token == "nz_down":
            raise StoreUnavailable
        return PRINCIPAL if token == "nz_good" else None


def with_header(value: bytes | None, path: str = "/api/chat") -> Exchange:
    fields = {} if value is None else {b"authorization": value}
    return exchange(method="GET" if path == "/" else "POST", path=path, head=RequestHead(fields))


async def passed(layer, given: Exchange) -> None:
    scope = scope_of()
    open_exchange(scope, given)
    await layer(scope, None, None)


@pytest.mark.parametrize(("path", "error"), [("/api/pull", MutationBlocked), ("/api/nope", RouteNotFound)])
async def test_what_the_table_refuses_goes_no_further(path: str, error: type[Exception]):
    below = Passed()

    with pytest.raises(error):
        await passed(MutationBlock(below), exchange(path=path))

    assert not below.reached


async def test_what_the_table_serves_passes_with_its_operation():
    below = Passed()
    given = exchange(operation=None)

    await passed(MutationBlock(below), given)

    assert below.reached
    assert given.operation is Operation.CHAT


async def test_a_good_key_passes_with_its_principal():
    below = Passed()
    given = with_header(b"Bearer nz_good")

    await passed(Auth(below, authenticator=Keys()), given)

    assert below.reached
    assert given.principal == PRINCIPAL


@pytest.mark.parametrize(
    "value", [None, b"", b"Bearer nz_bad", b"Basic nz_good", b"nz_good", b"Bearer nz_good x"]
)
async def test_anything_else_is_unauthenticated_alike(value: bytes | None):
    below = Passed()

    with pytest.raises(Unauthenticated) as caught:
        await passed(Auth(below, authenticator=Keys()), with_header(value))

    assert not below.reached
    assert str(caught.value) == str(Unauthenticated())


async def test_anthropics_callers_may_send_the_key_alone():
    below = Passed()
    given = exchange(path="/v1/messages", head=RequestHead({b"x-api-key": b"nz_good"}))

    await passed(Auth(below, authenticator=Keys()), given)

    assert below.reached
    assert given.principal == PRINCIPAL


async def test_two_credentials_at_once_are_malformed():
    """Before either of them is looked up."""
    keys = Keys()
    both = RequestHead({b"x-api-key": b"nz_good", b"authorization": b"Bearer nz_good"})

    with pytest.raises(MalformedRequest):
        await passed(Auth(Passed(), authenticator=keys), exchange(path="/v1/messages", head=both))

    assert keys.asked == []


async def test_a_store_that_is_down_is_never_a_401():
    with pytest.raises(StoreUnavailable):
        await passed(Auth(Passed(), authenticator=Keys()), with_header(b"Bearer nz_down"))


async def test_public_operations_ask_for_no_key():
    """A client's heartbeat and a probe have none; and one that is sent is not even looked at."""
    keys, below = Keys(), Passed()

    await passed(Auth(below, authenticator=keys), with_header(b"Bearer nz_bad", "/"))

    assert below.reached
    assert keys.asked == []
