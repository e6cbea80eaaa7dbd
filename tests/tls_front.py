"""TLS in front of a Postgres that was built without it, spoken as Postgres speaks it."""

import contextlib
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

_SSL_REQUEST = struct.pack("!II", 8, 80877103)


class _Relay(socketserver.BaseRequestHandler):
    server: "TlsFront"

    def handle(self) -> None:
        here: socket.socket = self.request
        with socket.create_connection(("127.0.0.1", self.server.target_port)) as there:
            first = here.recv(8, socket.MSG_WAITALL)
            if first == _SSL_REQUEST:
                here.sendall(b"S")
                try:
                    here = self.server.context.wrap_socket(here, server_side=True)
                except OSError:  # who is not satisfied with the certificate hangs up
                    return
            else:
                there.sendall(first)
            self.server.seen.append(isinstance(here, ssl.SSLSocket))
            back = threading.Thread(target=_pump, args=(there, here), daemon=True)
            back.start()
            _pump(here, there)
            back.join()
            here.close()


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
