"""The end of a process: nothing that runs is lost, nothing new begins, and nobody is left in the dark."""

import json
import threading
from pathlib import Path

import httpx
import pytest

from tests.engines import wait_until
from tests.gateways import Gateway

HELLO = [{"role": "user", "content": "Hello!"}]


class Reader(threading.Thread):
    """Reads one stream in the background."""

    def __init__(self, gateway: Gateway, path: str, **body: object) -> None:
        super().__init__(daemon=True)
        self._gateway = gateway
        self._path = path
        self._body = body
        self.begun = threading.Event()
        self.lines: list[str] = []
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            with (
                self._gateway.client() as client,
                client.stream("POST", self._path, json=self._body) as answered,
            ):
                for line in answered.iter_lines():
                    self.lines.append(line)
                    self.begun.set()
        except httpx.HTTPError as error:
            self.failure = error
            self.begun.set()


def test_a_stream_that_runs_at_sigterm_is_finished(own_gateway: Gateway):
    """The whole answer comes, then the process ends with 0, and its row is in the audit log."""
    reader = Reader(own_gateway, "/api/chat", model="endless", messages=HELLO, options={"num_predict": 1500})
    reader.start()
    assert reader.begun.wait(10)

    own_gateway.terminate()

    assert own_gateway.wait(30) == 0
    reader.join(5)
    assert reader.failure is None
    last = json.loads(reader.lines[-1])
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "length", 1500)
    (row,) = own_gateway.rows("operation = 'chat'")
    assert (row["outcome"], row["completion_tokens"]) == ("served", 1500)


def test_while_draining_new_work_is_refused_and_probes_are_told(own_gateway: Gateway):
    """readyz says 503, healthz 200; new inference gets 503 with Retry-After in its dialect."""
    reader = Reader(own_gateway, "/api/chat", model="endless", messages=HELLO, options={"num_predict": 3000})
    reader.start()
    assert reader.begun.wait(10)

    own_gateway.terminate()
    with own_gateway.client() as client:
        assert wait_until(lambda: client.get("/readyz").status_code == 503, 5)
        ready = client.get("/readyz").json()
        health = client.get("/healthz")
        refused = client.post("/v1/chat/completions", json={"model": "greeting", "messages": HELLO})

    assert ready == {"status": "unavailable", "missing": ["draining"]}
    assert health.json() == {"status": "ok"}
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) >= 1
    assert own_gateway.wait(30) == 0
    reader.join(5)
    assert json.loads(reader.lines[-1])["done"] is True


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_drain_out_of_time_ends_streams_with_an_error(own_gateway: Gateway, path: str):
    """Not with a cut: the last frame says so, in the caller's dialect."""
    own_gateway.stop()
    own_gateway.environment["GATEWAY_DRAIN_S"] = "0.5"
    own_gateway.start()
    reader = Reader(own_gateway, path, model="endless", messages=HELLO, stream=True)
    reader.start()
    assert reader.begun.wait(10)

    own_gateway.terminate()

    assert own_gateway.wait(15) == 0
    reader.join(5)
    assert reader.failure is None
    last = [line for line in reader.lines if line][-1].removeprefix("data: ")
    assert "error" in json.loads(last)
    (row,) = own_gateway.rows("status = 200 AND stream = 1")
    assert (row["outcome"], row["error_code"]) == ("cut", "draining")


def test_an_idle_gateway_stops_at_once_and_cleanly(own_gateway: Gateway):
    with own_gateway.client() as client:
        client.get("/healthz")
        own_gateway.terminate()
        assert own_gateway.wait(5) == 0

    assert "Traceback" not in own_gateway.log.read_text()


def test_it_starts_again_on_what_it_left(own_gateway: Gateway):
    """After a kill -9, too: the key still works and the database is whole."""
    assert own_gateway.process is not None
    own_gateway.process.kill()
    own_gateway.wait()

    own_gateway.start()

    with own_gateway.client() as client:
        assert client.get("/v1/models").status_code == 200


def test_a_port_that_is_taken_is_told_in_a_sentence(own_gateway: Gateway, tmp_path: Path):
    """By a gateway with a database of its own."""
    bind = own_gateway.url.removeprefix("http://")

    second = Gateway(tmp_path / "second", GATEWAY_BIND=bind).command("serve")

    assert second.returncode == 1
    assert "cannot listen on" in second.stderr
    assert "address already in use" in second.stderr.lower()
    assert "Traceback" not in second.stderr


def test_another_secret_is_refused_at_the_start(own_gateway: Gateway):
    """Not with a 401 for everyone."""
    own_gateway.stop()
    own_gateway.environment["GATEWAY_SECRET"] = "0123456789abcdef" * 2 + "ghijklmnop"

    done = own_gateway.command("serve")

    assert done.returncode == 1
    assert "another secret" in done.stderr
    assert "0123456789abcdef" not in done.stderr
