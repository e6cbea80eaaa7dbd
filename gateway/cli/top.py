"""The command that watches a running gateway."""

import ipaddress
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from gateway import config
from gateway.cli.output import json_option, show_json
from gateway.cli.screen import rendered, report
from gateway.config import Address
from gateway.ops.reading import Change, Reading, Unreadable, fetch, read

_FIRST_LOOK_S: Final = 1.0
# "" is the end of what is typed: the terminal has gone.
_ENDING: Final = ("q", "Q", "")


@click.command()
@click.option("--interval", type=click.FloatRange(0.2, 60), default=2.0, show_default=True, help="Seconds.")
@click.option("--once", is_flag=True, help="Show it once, and end.")
@click.option("--address", metavar="HOST:PORT", help="Of another gateway's GATEWAY_OPS_BIND.")
@json_option
def top(interval: float, once: bool, address: str | None, as_json: bool) -> None:
    """Watch a running gateway: tenants, keys, streams, queues, backends, budgets.

    What it tells on GATEWAY_OPS_BIND, of one process; q ends it. Rates are of the last interval. --json and
    --once look for a second, print one report and end.

    \b
    Examples:
      neuronetz-gateway top
      neuronetz-gateway top --address 10.0.0.5:9090 --interval 5
      neuronetz-gateway top --json
    """
    where = _address(address)
    if as_json:
        show_json(report(_first_change(where)))
    elif once or not sys.stdout.isatty():
        Console().print(rendered(report(_first_change(where)), str(where)))
    else:
        _watch(where, interval)


def _address(given: str | None) -> Address:
    if given is not None:
        host, _, port = given.rpartition(":")
        if not host or not port.isdecimal():
            raise click.BadParameter("an address and a port, such as 127.0.0.1:9090", param_hint="--address")
        return Address(host.strip("[]"), int(port))
    bind = config.load().ops_bind
    if bind is None:
        raise click.ClickException("GATEWAY_OPS_BIND is off, so there is nothing to watch.")
    return Address(_reachable(bind.host), bind.port)


def _reachable(host: str) -> str:
    """Where to find on this machine what listens on all of its addresses, or on this one."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def _first_change(where: Address) -> Change:
    before = _look(where)
    time.sleep(_FIRST_LOOK_S)
    return Change(before, _look(where))


def _look(where: Address) -> Reading:
    try:
        return read(fetch(where), time.monotonic())
    except Unreadable as error:
        raise click.ClickException(
            f"no gateway to watch at {where}: {error}; see GATEWAY_OPS_BIND, or give --address."
        ) from error


def _watch(where: Address, interval: float) -> None:
    """Until q or Ctrl-C. A gateway that does not answer meanwhile is waited for."""
    change = Change(None, _look(where))
    with suppress(KeyboardInterrupt), _keys() as is_over, Live(screen=True, auto_refresh=False) as live:
        while True:
            live.update(rendered(report(change), str(where)), refresh=True)
            if is_over(interval):
                return
            try:
                change = Change(change.now, read(fetch(where), time.monotonic()))
            except Unreadable as error:
                live.update(Text(f"{where}: {error}; it is tried again.", "bold red"), refresh=True)
                if is_over(interval):
                    return


class _Keys:
    """Tells within so many seconds whether somebody wants to end it."""

    def __init__(self, is_terminal: bool) -> None:
        self._is_terminal = is_terminal

    def __call__(self, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while (rest_s := until - time.monotonic()) > 0:
            if not self._is_terminal:
                time.sleep(rest_s)
            elif select.select([sys.stdin], [], [], rest_s)[0] and sys.stdin.read(1) in _ENDING:
                return True
        return False


@contextmanager
def _keys() -> Iterator[_Keys]:
    """Single keys, without Enter and without being shown; the terminal is as it was afterwards."""
    if not sys.stdin.isatty():
        yield _Keys(is_terminal=False)
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield _Keys(is_terminal=True)
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
