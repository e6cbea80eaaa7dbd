"""The model servers: whether they answer, who else may ask them, and how much they do at the same time."""

import asyncio
import ipaddress
import json
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from gateway.backends.answers import BackendTimeouts
from gateway.backends.http import HttpBackend
from gateway.config import BackendConfig, Config
from gateway.doctor.findings import Finding, failed, ok, skipped, warning
from gateway.doctor.probing import get, own_addresses
from gateway.errors import GatewayError

_PATHS: Final = {"ollama": "/api/tags", "openai": "/v1/models"}


async def examine_backends(config: Config) -> AsyncIterator[Finding]:
    if not config.backends:
        yield failed(
            "backends", "OLLAMA_BACKENDS names no model server.", "Name one, such as http://gpu-1:11434."
        )
    elsewhere = own_addresses()
    for backend in config.backends:
        reached = await _reachable(backend, config)
        yield reached
        if not reached.remedy:
            yield await _not_public(backend, elsewhere)
            yield await _parallelism(backend)


async def _reachable(backend: BackendConfig, config: Config) -> Finding:
    check = f"backend {backend.name}"
    one = HttpBackend(backend, _timeouts(config))
    await one.open()
    try:
        models = await one.models()
    except GatewayError as error:
        return failed(
            check,
            f"{backend.url} is not usable: {error.sentence}",
            "Start it, or take it out of OLLAMA_BACKENDS.",
        )
    finally:
        await one.close()
    if not models:
        return warning(check, f"{backend.url} answers, and has no models.", "Give it one (ollama pull …).")
    return ok(check, f"{backend.url} answers, and has {len(models)} model{'s'[: len(models) != 1]}.")


def _timeouts(config: Config) -> BackendTimeouts:
    return BackendTimeouts(connect_s=config.connect_timeout_s, first_byte_s=5, chunk_gap_s=5, answer_s=5)


async def _not_public(backend: BackendConfig, elsewhere: Sequence[str]) -> Finding:
    """Whoever reaches a model server itself passes by every key, limit and budget, and can delete models."""
    check = f"backend {backend.name} access"
    parts = urlsplit(backend.url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    addresses = await _addresses(host)
    if not all(address.is_loopback for address in addresses):
        told = await get(backend.url + _PATHS[backend.kind])
        if told is None or told.status in (401, 403):
            return ok(check, f"{backend.url} asks for a credential.")
        if any(address.is_global for address in addresses):
            return failed(
                check,
                f"{backend.url} is on a public address and answers without a credential.",
                "Close it with a firewall to all but this machine, or have it ask for a key (key-env=).",
            )
        return warning(
            check,
            f"{backend.url} answers whoever reaches it, without a credential.",
            "Keep its network closed to all but the gateways, or have it ask for a key (key-env=).",
        )
    for address in elsewhere:
        told = await get(f"http://{address}:{port}{_PATHS[backend.kind]}")
        if told is not None and told.status == 200:
            return failed(
                check,
                f"{backend.url} also answers at {address}:{port}, without a credential.",
                "Bind it to the loopback (OLLAMA_HOST=127.0.0.1:11434), or close the port with a firewall.",
            )
    return ok(check, f"{backend.url} is on the loopback, and does not answer elsewhere.")


async def _addresses(host: str) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [ipaddress.ip_address(str(one[4][0]).partition("%")[0]) for one in found]


async def _parallelism(backend: BackendConfig) -> Finding:
    check = f"backend {backend.name} slots"
    does = await _does_at_once(backend)
    if does is None:
        return skipped(check, f"{backend.url} does not tell how many requests it works on at the same time.")
    if backend.slots is None:
        return warning(
            check,
            f"It works on {does} requests at the same time; what is beyond queues there, in nobody's order.",
            f"slots={does} in its entry of OLLAMA_BACKENDS lets tenants queue here, in fair shares.",
        )
    if backend.slots > does:
        return warning(
            check,
            f"It is sent {backend.slots} requests at the same time, and works on {does}.",
            f"slots={does} in its entry of OLLAMA_BACKENDS, or more on its side (OLLAMA_NUM_PARALLEL, -np).",
        )
    return ok(check, f"It is sent {backend.slots} requests at the same time, and works on {does}.")


async def _does_at_once(backend: BackendConfig) -> int | None:
    """llama.cpp tells; of Ollama, the variable tells where it is set for both."""
    if backend.kind == "ollama":
        text = os.environ.get("OLLAMA_NUM_PARALLEL", "")
        return int(text) if text.isdecimal() and int(text) else None
    credential = {"Authorization": f"Bearer {backend.credential}"} if backend.credential else {}
    told = await get(f"{backend.url}/props", credential)
    if told is None or told.status != 200:
        return None
    try:
        slots = json.loads(told.body).get("total_slots")
    except (ValueError, AttributeError):
        return None
    return slots if isinstance(slots, int) and slots > 0 else None
