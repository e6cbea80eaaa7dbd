"""TLS in front of a Postgres or a Redis that was built without it, spoken as each of them speaks it."""

import contextlib
import socket
import socketserver
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

_SSL_REQUEST = struct.pack("!II", 8, 80877103)
# The first byte of a client that speaks TLS at once, as those of Redis do: RFC 8446, 5.1.
_HANDSHAKE = b"\x16"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each signed by itself, so that it is its own authority: that of the server, and another one."""
    folder = tmp_path_factory.mktemp("certificates")
    made = {"server": folder / "server.pem", "another": folder / "another.pem"}
    for name, certificate in made.items():
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        of_whom = ["-nodes", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost"]
        to = ["-keyout", str(certificate.with_suffix(".key")), "-out", str(certificate)]
        subprocess.run([*command, *of_whom, *to], check=True, capture_output=True)
    return made


class _Relay(socketserver.BaseRequestHandler):
    server: "TlsFront"

    def handle(self) -> None:
        here: socket.socket = self.request
        with socket.create_connection(("127.0.0.1", self.server.target_port)) as there:
            if self._wants_tls(here, there):
                try:
                    here = self.server.context.wrap_socket(here, server_side=True)
                except OSError:  # who is not satisfied with the certificate hangs up
                    return
            self.server.seen.append(isinstance(here, ssl.SSLSocket))
            back = threading.Thread(target=_pump, args=(there, here), daemon=True)
            back.start()
            _pump(here, there)
            back.join()
            here.close()

    def _wants_tls(self, here: socket.socket, there: socket.socket) -> bool:
        if here.recv(1, socket.MSG_PEEK) == _HANDSHAKE:
            return True
        first = here.recv(8, socket.MSG_WAITALL)
        if first == _SSL_REQUEST:
            here.sendall(b"S")
            return True
        there.sendall(first)
        return False


class TlsFront(socketserver.ThreadingTCPServer):
    """Of each connection it notes whether it was over TLS."""

    daemon_threads = True

    def __init__(self, target_port: int, certificate: Path, key: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.target_port = target_port
        self.port = int(self.server_address[1])
        self.seen: list[bool] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tls_front(target_port: int, certificate: Path, key: Path) -> Iterator[TlsFront]:
    with TlsFront(target_port, certificate, key) as front:
        serving = threading.Thread(target=front.serve_forever, args=(0.01,), daemon=True)
        serving.start()
        yield front
        front.shutdown()
        serving.join()
