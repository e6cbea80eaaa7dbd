"""One process, from its settings to its exit."""

import socket
import subprocess
import sys

import httpx

from tests.engines import wait_until
from tests.gateways import Gateway


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_it_serves_and_stops_without_a_standard_error(tmp_path):
    """A socket in its place would be written to by others, and libuv aborts when it is to close it."""
    address = f"127.0.0.1:{free_port()}"
    gateway = Gateway(tmp_path, GATEWAY_BIND=address, OLLAMA_BACKENDS="http://127.0.0.1:1")
    gateway.json("migrate")
    closed = ["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "gateway", "serve"]

    with subprocess.Popen(closed, cwd=tmp_path, env=gateway.environment) as process:
        try:
            assert wait_until(lambda: is_up(f"http://{address}/healthz"), 20)
        finally:
            process.terminate()

    assert process.returncode == 0


def is_up(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
