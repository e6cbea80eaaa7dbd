"""SIGTERM of one replica under load: what can end does, the rest is told, all is settled."""

import time

import httpx

from gateway.accounting import Policy
from tests.engines import wait_until
from tests.fleet.books import Books
from tests.fleet.callers import Load
from tests.fleet.conftest import DRAIN_S
from tests.fleet.counted_model import Order
from tests.fleet.fleet import Fleet
from tests.fleet.trials import SHORT


def test_a_replica_that_stops_loses_nothing(fleet: Fleet):
    """Streams and whole answers in both dialects, of two seconds and of ten, with three to drain."""
    customer = fleet.customer("drained", Policy(total_tokens=10**6, concurrent=1000))
    stopping, staying = fleet.replicas
    in_time = Order(tokens=10, gap_s=DRAIN_S / 20, label="in time")
    too_long = Order(tokens=100, gap_s=DRAIN_S / 30, label="too long")
    with (
        Load([stopping.url], customer.key, in_time, callers=4, once=True) as ended,
        Load([stopping.url], customer.key, too_long, callers=4, once=True) as cut,
        Load([stopping.url], customer.key, SHORT, callers=4) as late,
        Load([staying.url], customer.key, SHORT, callers=4) as elsewhere,
    ):
        for label in ("in time", "too long"):
            assert wait_until(lambda: len(fleet.model.labelled(label)) == 4, 20)  # noqa: B023 - at once
        stopping.terminate()
        asked = time.monotonic()
        assert wait_until(lambda: "draining" in httpx.get(f"{stopping.url}/readyz").text, DRAIN_S)
        exit_code = stopping.wait(DRAIN_S + 10)
    leftovers = list((stopping.directory / "data" / "spool").iterdir())
    stopping.start()

    assert (exit_code, leftovers) == (0, [])
    assert all(one.is_complete for one in ended.told)
    assert [(one.status, one.is_complete, bool(one.error)) for one in cut.told] == [
        (200 if one.way[1] else 503, False, True) for one in cut.told
    ]
    assert {one.status for one in late.told if one.sent_at > asked} <= {200, 503, 0}
    assert {one.status for one in elsewhere.told} == {200}
    books = Books(fleet, customer, [*ended.told, *cut.told, *late.told, *elsewhere.told])
    books.close()
    codes = {row["error_code"] for row in books.audit.values()}
    assert codes == {None, "draining"}
