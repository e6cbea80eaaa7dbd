"""What a request costs of Redis: one script before it is forwarded, one after it ended."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.accounting import Policy
from tests.engines import wait_until
from tests.fleet.callers import Load, Told
from tests.fleet.counted_model import Order
from tests.fleet.fleet import Customer, Fleet
from tests.servers import RedisServer

EVERYTHING = Policy(
    rpm=10**6, tpm=10**9, concurrent=100, daily_tokens=10**9, monthly_tokens=10**9, total_tokens=10**9
)


@contextmanager
def monitored(redis: RedisServer) -> Iterator[list[str]]:
    """Each command that the server carries out, as it tells them."""
    told: list[str] = []
    with socket.create_connection(("127.0.0.1", redis.port)) as connection:
        connection.sendall(f"AUTH {redis.password}\r\nMONITOR\r\n".encode())
        lines = connection.makefile("r")
        assert [next(lines), next(lines)] == ["+OK\n", "+OK\n"]
        of_callers = (line for line in lines if " lua]" not in line)  # not what scripts carry out
        listening = threading.Thread(target=lambda: told.extend(of_callers))
        listening.start()
        yield told
        connection.shutdown(socket.SHUT_RDWR)
        listening.join()


def ask_all(fleet: Fleet, customer: Customer) -> list[Told]:
    """Each of eight callers, once."""
    with Load(fleet.urls, customer.key, Order(tokens=2), callers=8, once=True) as load:
        assert wait_until(lambda: len(load.since(0)) == 8, 30)
    return load.told


def test_a_request_makes_two_round_trips(fleet: Fleet, redis: RedisServer):
    """With every limit and budget on, of tenant and key; its key is known, and so is its tenant."""
    customer = fleet.customer("round trips", EVERYTHING)
    first = ask_all(fleet, customer)
    with monitored(redis) as told:
        second = ask_all(fleet, customer)
        assert wait_until(lambda: all(len(_naming(one.request_id, told)) == 2 for one in second), 10)

    assert {one.status for one in [*first, *second]} == {200}
    # What looks after leases that ran out asks of a tenant at times; no request does.
    ids = {one.request_id for one in second}
    others = [line for line in told if customer.id in line and not any(one in line for one in ids)]
    assert {_command(line) for line in others} <= {"EVALSHA"}
    assert not [line for line in others if customer.key_id in line]


def _naming(request_id: str, told: list[str]) -> list[str]:
    return [line for line in told if request_id in line]


def _command(line: str) -> str:
    """Of `+1700000000.000000 [0 127.0.0.1:5000] "EVALSHA" "…"`."""
    return line.split('"')[1].upper()
