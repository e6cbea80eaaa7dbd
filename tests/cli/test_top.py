"""The command top where there is nothing to watch, and what it would show."""

import pytest
from rich.console import Console

from gateway.cli.screen import MAX_ROWS, rendered, report
from gateway.cli.top import _address
from gateway.ops.reading import Change, read
from tests.cli.conftest import Commands

HEAD = 'gateway_ready {ready}\ngateway_missing{{what="redis"}} {missing}\n'


def metrics(*lines: str, ready: int = 1) -> str:
    return HEAD.format(ready=ready, missing=1 - ready) + "\n".join(lines) + "\n"


def screen(told: dict[str, object]) -> str:
    console = Console(width=110, record=True, file=None, force_terminal=False)
    with console.capture() as captured:
        console.print(rendered(told, "127.0.0.1:9090"))
    return captured.get()


def test_nobody_is_there(unmigrated: Commands, monkeypatch):
    """A sentence, and what to do."""
    done = unmigrated("top", "--once", "--address", "127.0.0.1:1")

    assert done.exit_code == 1
    assert "no gateway to watch at 127.0.0.1:1: nobody answers there; see GATEWAY_OPS_BIND" in done.stderr
    assert unmigrated("top", "--address", "9090").exit_code == 2

    monkeypatch.setenv("GATEWAY_OPS_BIND", "off")
    assert "GATEWAY_OPS_BIND is off" in unmigrated("top").stderr


def test_budgets_that_are_nearly_spent_come_first():
    text = metrics(
        *(f'gateway_budget_tokens{{tenant="{tenant}",window="day"}} 100' for tenant in ("a", "b", "c")),
        *(
            f'gateway_budget_remaining_tokens{{tenant="{tenant}",window="day"}} {left}'
            for tenant, left in (("a", 50), ("b", 5), ("c", 100))
        ),
    )

    told = report(Change(None, read(text, 0.0)))

    assert [one["tenant"] for one in told["budgets"]] == ["b", "a", "c"]
    assert "5%" in screen(told)


def test_the_busiest_are_shown_and_the_others_counted():
    text = metrics(
        *(f'gateway_tenant_requests_total{{tenant="t{n}",outcome="served"}} {n}' for n in range(MAX_ROWS + 5))
    )

    told = report(Change(None, read(text, 0.0)))

    assert told["tenants"][0]["tenant"] == f"t{MAX_ROWS + 4}"
    assert "… and 5 more" in screen(told)


def test_trouble_is_seen():
    """A gateway that is not ready, a backend that is down, one that is left alone, and one that drains."""
    text = metrics(
        *(f'gateway_backend_up{{backend="{name}",kind="ollama"}} {up}' for name, up in
          (("a", 0), ("b", 1), ("c", 1), ("d", 1))),
        'gateway_backend_breaker_open{backend="b"} 1',
        'gateway_backend_draining{backend="c"} 1',
        'gateway_queue_length{backend="d"} 1234567',
        ready=0,
    )  # fmt: skip

    shown = screen(report(Change(None, read(text, 0.0))))

    assert "NOT READY (missing: redis)" in shown
    assert all(word in shown for word in ("DOWN", "broken", "draining", " up "))


def test_a_name_is_no_markup():
    text = metrics('gateway_tenant_requests_total{tenant="[red]x",outcome="served"} 1')

    assert "[red]x" in screen(report(Change(None, read(text, 0.0))))


@pytest.mark.parametrize(
    ("bind", "shown"),
    [("0.0.0.0:9", "127.0.0.1:9"), ("[::]:9", "[::1]:9"), ("127.0.0.1:9", None), ("ops.internal:9", None)],
)
def test_what_listens_everywhere_is_looked_for_here(unmigrated, monkeypatch, bind: str, shown: str | None):
    """An address that stands for all of a machine's is none to connect to."""
    monkeypatch.setenv("GATEWAY_OPS_BIND", bind)

    assert str(_address(None)) == (shown or bind)
