"""What the process holds of requests that are over: nothing, however large their bodies were."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import Double, answer, chat_frame
from tests.gateways import Gateway

MIB = 1 << 20
# As base64 has it; llama.cpp and Ollama are sent images like this one.
IMAGE = "/9j/" + "A" * (8 * MIB)
REQUESTS = 40


@pytest.fixture
def backend() -> Iterator[Double]:
    with Double() as double:
        yield double


@pytest.fixture
def fresh(tmp_path: Path, backend: Double) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path, OLLAMA_BACKENDS=f"double={backend.url}")
    gateway.make_first_key()
    try:
        yield gateway.start()
    finally:
        gateway.stop()


def resident_bytes(gateway: Gateway) -> int:
    assert gateway.process is not None
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells of a process' memory so")
@pytest.mark.parametrize(
    ("model", "said", "status"),
    [
        pytest.param("double", answer(200, chat_frame("Hello", done=True)), 200, id="served"),
        pytest.param("nosuch", answer(200, {}), 404, id="refused"),
        pytest.param("double", answer(400, {"error": "no image"}), 400, id="failed"),
    ],
)
def test_bodies_go_with_their_requests(fresh: Gateway, backend: Double, model: str, said: Any, status: int):
    """One after the other, so never more than one is needed; all of them together are 320 MiB."""
    backend.scripts["/api/chat"] = said
    message = {"role": "user", "content": "What is it?", "images": [IMAGE]}
    body = json.dumps({"model": model, "messages": [message], "stream": False})
    with fresh.client() as client:
        client.post("/api/chat", content=body)  # what the first one makes stays
        before = resident_bytes(fresh)
        most = 0
        for _ in range(REQUESTS):
            assert client.post("/api/chat", content=body).status_code == status
            most = max(most, resident_bytes(fresh) - before)

    assert most < 160 * MIB
