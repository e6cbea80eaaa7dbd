"""All of compose.yaml in a fresh copy of this checkout, with its own ports, volumes and names."""

import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define, field
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, ResponseReceived, StreamReset

from deploy.testing import base_images
from deploy.testing.base_images import ROOT
from deploy.testing.engine import Engine

IMAGE: Final = "neuronetz-gateway-testing"
BACKENDS: Final = (
    "ollama=http://ollama:11434;kind=openai;slots=4,long=http://ollama:11435;kind=openai;slots=4"
)
SERVICES: Final = ("caddy", "gateway", "postgres", "redis", "ollama")


@define
class Stack:
    """`up` it once; `down` leaves nothing."""

    engine: Engine
    folder: Path
    name: str = "neuronetz-gateway-testing"
    https: int = 0
    http: int = 0
    first_answer_s: float = 0.0
    said: str = ""
    """What deploy/up.sh printed at last."""
    key: str = field(default="", repr=False)

    def copy(self) -> None:
        """What git knows, and nothing else."""
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)

    def prepare(self) -> None:
        """A copy, the image, and settings."""
        self.copy()
        base_images.build(self.engine, self.folder, IMAGE, "--file", str(self.folder / "deploy/Dockerfile"))
        self.https, self.http = _free_port(), _free_port()
        settings = {
            "COMPOSE_PROJECT_NAME": self.name,
            "HTTPS_PORT": self.https,
            "HTTP_PORT": self.http,
            "IMAGE": IMAGE,
            "OLLAMA_IMAGE": base_images.ENGINE,
        }
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self.folder / "config").mkdir()
        (self.folder / "config/.env").write_text(f"OLLAMA_BACKENDS={BACKENDS}\n")

    def up(self) -> None:
        """As docs/DEPLOYMENT.md says; then the printed command, which gets a streamed answer."""
        began = time.monotonic()
        self.said = self.engine.run("sh", "deploy/up.sh", "--pull", "greeting", cwd=self.folder)
        self.key = self.key or re.findall(r"nz_[0-9A-Za-z]{48}", self.said)[0]
        command = self.said[self.said.index("  curl ") :]
        answer = self.engine.run("sh", "-c", command.replace("nz_…", self.key), cwd=self.folder)
        self.first_answer_s = time.monotonic() - began
        assert answer.rstrip().endswith("data: [DONE]"), answer

    def down(self) -> None:
        self.compose("--profile", "tools", "down", "--volumes", "--timeout", "5", "--remove-orphans")

    def compose(self, *words: str, check: bool = True) -> str:
        return self.engine.run("docker", "compose", *words, check=check, cwd=self.folder)

    def command(self, *words: str, check: bool = True) -> str:
        """What `neuronetz-gateway …` prints within the gateway's container."""
        return self.compose("exec", "-T", "gateway", "neuronetz-gateway", *words, check=check)

    def told(self, *words: str) -> Any:
        return json.loads(self.command(*words, "--json"))

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "--quiet", service).split()

    def inspected(self, container: str) -> Any:
        (told,) = json.loads(self.engine.run("docker", "inspect", container))
        return told

    def published(self, container: str) -> list[dict[str, str]]:
        """Its ports on this machine, as `HostIp` and `HostPort`."""
        ports = self.inspected(container)["NetworkSettings"]["Ports"]
        return [one for ones in ports.values() for one in ones or ()]

    def addresses(self, service: str) -> list[str]:
        """Of the service's first container, one for each network."""
        networks = self.inspected(self.containers(service)[0])["NetworkSettings"]["Networks"].values()
        return [network["IPAddress"] for network in networks]

    def reaches(self, network: str, targets: list[tuple[str, int]]) -> set[tuple[str, int]]:
        """Which of the targets a stranger's container on this network can connect to."""
        script = (
            "import socket, sys\n"
            "for target in sys.argv[1:]:\n"
            "    host, port = target.rsplit(':', 1)\n"
            "    try: socket.create_connection((host, int(port)), 2).close()\n"
            "    except OSError: continue\n"
            "    print(target)\n"
        )
        words = [f"{host}:{port}" for host, port in targets]
        run = ("docker", "run", "--rm", "--network", network, base_images.OFFICIAL["python"])
        said = self.engine.run(*run, "python3", "-c", script, *words)
        return {(host, int(port)) for host, _, port in (line.rpartition(":") for line in said.split())}

    def reached_the_engine(self) -> list[str]:
        """The request lines that came through to the models."""
        return self.compose("exec", "-T", "ollama", "cat", "/tmp/requests").splitlines()

    # ── from outside ─────────────────────────────────────────────────────────────────────

    def trust(self, *protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "config/localhost-ca.crt"))
        context.set_alpn_protocols(list(protocols or ("http/1.1",)))
        return context

    def connection(self, *protocols: str, port: int = 0, name: str = "localhost") -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", port or self.https), 60)
        return self.trust(*protocols).wrap_socket(plain, server_hostname=name)

    def exchange(self, request: bytes, port: int = 0) -> bytes:
        """All that comes back until the other side closes. Requests say `Connection: close`."""
        received = b""
        with self.connection(port=port) as connection:
            try:
                connection.sendall(request)
                while piece := connection.recv(65536):
                    received += piece
            except (ConnectionError, ssl.SSLError):
                pass
        return received

    def exchange_h2(self, headers: list[tuple[str, str]], port: int = 0) -> int:
        """The status that comes back over HTTP/2 for headers sent as they are; 0: all of it was reset."""
        unchecked = H2Configuration(
            client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False
        )
        protocol = H2Connection(unchecked)
        with self.connection("h2", port=port) as connection:
            assert connection.selected_alpn_protocol() == "h2"
            protocol.initiate_connection()
            protocol.send_headers(1, headers, end_stream=True)
            connection.sendall(protocol.data_to_send())
            try:
                while piece := connection.recv(65536):
                    for event in protocol.receive_data(piece):
                        if isinstance(event, ResponseReceived):
                            return int(dict(event.headers)[b":status"])
                        if isinstance(event, StreamReset | ConnectionTerminated):
                            return 0
                    connection.sendall(protocol.data_to_send())
            except OSError:
                pass
        return 0

    def ask(self, model: str, max_tokens: int, *, key: str = "") -> bytes:
        """A streamed chat; all bytes of the answer, head and all."""
        return self.exchange(chat(key or self.key, model, max_tokens))


def chat(key: str, model: str, max_tokens: int) -> bytes:
    """The request as bytes."""
    body = json.dumps(
        {
            "model": model,
            "stream": True,
            "max_tokens": max_tokens,
            "messages": [{"role": "user", "content": "Hello!"}],
        }
    ).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def status_of(answer: bytes) -> int:
    """0: there was none."""
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 120) -> None:
    """Look again and again. A failure of looking is no answer yet."""
    deadline = time.monotonic() + timeout_s
    last: Exception | None = None
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (OSError, RuntimeError, ValueError) as error:
            last = error
        time.sleep(0.3)
    raise AssertionError(f"not within {timeout_s} s: {what}; {last}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
