"""The way of a request: the proxy in front, and the time-outs from one end to the other."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from gateway.config import Config
from gateway.doctor.findings import Finding, failed, ok, skipped, warning
from gateway.doctor.probing import get, is_open
from gateway.rules.addresses import is_loopback

# What a stop is given from outside: docker's and Kubernetes' own defaults are 10 s and 30 s.
_STOP_S: Final = 150.0
_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIMEOUTS: Final = re.compile(
    r"^\s*(response_header_timeout|read_timeout|write_timeout)\s+(\d+(?:\.\d+)?)(ms|s|m|h)\b", re.MULTILINE
)


async def examine_road(config: Config, caddyfile: Path = Path("Caddyfile")) -> AsyncIterator[Finding]:
    for finding in _timeouts(config, caddyfile):
        yield finding
    yield await _proxy(config)
    yield _ops(config)


def _timeouts(config: Config, caddyfile: Path) -> Iterator[Finding]:
    said = False
    if config.drain_s > _STOP_S:
        said = True
        yield warning(
            "time-outs",
            f"A stop may take GATEWAY_DRAIN_S, {config.drain_s:g} s.",
            "Let whoever stops it wait longer (stop_grace_period, TimeoutStopSec), or drain shorter.",
        )
    if config.chunk_gap_timeout_s < 15:
        said = True
        yield warning(
            "time-outs",
            f"GATEWAY_CHUNK_GAP_TIMEOUT_S is {config.chunk_gap_timeout_s:g} s: busy models pause that long.",
            "30 s or more; callers see nothing of the pauses, they get heartbeats.",
        )
    for name, seconds in _of_caddy(caddyfile):
        if seconds < config.first_byte_timeout_s:
            said = True
            yield warning(
                "time-outs",
                f"{name} in {caddyfile} is {seconds:g} s, less than GATEWAY_FIRST_BYTE_TIMEOUT_S.",
                "Take it out, or make it longer: Caddy would give up on a model that is being loaded.",
            )
    if not said:
        yield ok("time-outs", "Nobody on the way gives up before the one behind it.")


def _of_caddy(caddyfile: Path) -> Iterator[tuple[str, float]]:
    try:
        text = caddyfile.read_text()
    except (OSError, UnicodeDecodeError):
        return
    for name, number, unit in _TIMEOUTS.findall(text):
        yield name, float(number) * _UNITS_S[unit]


async def _proxy(config: Config) -> Finding:
    """Keys must not cross a network in the clear."""
    is_inside = is_loopback(config.bind.host)
    told = await get("http://127.0.0.1:80/")
    is_there = await is_open("127.0.0.1", 443) or (told is not None and "caddy" in told.server.lower())
    if is_there and not config.trusted_proxies:
        return warning(
            "proxy",
            "A web server is on this machine, and no proxy is trusted: all callers would have its address.",
            "GATEWAY_TRUSTED_PROXIES=127.0.0.1 if it is the proxy in front of this gateway.",
        )
    if config.trusted_proxies:
        return ok("proxy", f"Callers come through {', '.join(map(str, config.trusted_proxies))}.")
    if is_inside:
        return warning(
            "proxy",
            f"Nothing is in front of {config.bind}: it is reached from this machine only.",
            "To serve others, put Caddy in front, which has TLS, and name it in GATEWAY_TRUSTED_PROXIES.",
        )
    return failed(
        "proxy",
        f"{config.bind} is reached without TLS: keys cross the network in the clear.",
        "Put Caddy in front, bind to where only it reaches, and name it in GATEWAY_TRUSTED_PROXIES.",
    )


def _ops(config: Config) -> Finding:
    if config.ops_bind is None:
        return skipped("ops address", "GATEWAY_OPS_BIND is off: there are no metrics.")
    if is_loopback(config.ops_bind.host):
        return ok("ops address", f"Metrics are at {config.ops_bind}, for this machine only.")
    return warning(
        "ops address",
        f"Metrics at {config.ops_bind} are told to whoever reaches it, tenants' names included.",
        "Keep it on a network that only operators reach, or on the loopback.",
    )
