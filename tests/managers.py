"""A double of systemd: the socket that a service tells of itself."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ManagerDouble:
    """What was told, datagram by datagram, as pairs."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)

    def next(self, within_s: float = 60) -> dict[str, str]:
        """Raises TimeoutError."""
        self._socket.settimeout(within_s)
        return dict(line.split("=", 1) for line in self._socket.recv(1 << 12).decode().splitlines())

    def until(self, name: str) -> list[dict[str, str]]:
        """All that was told up to and with the first datagram that has `name`."""
        told = [self.next()]
        while name not in told[-1]:
            told.append(self.next())
        return told

    def close(self) -> None:
        self._socket.close()


@contextmanager
def manager_double(folder: Path) -> Iterator[ManagerDouble]:
    double = ManagerDouble(folder / "notify")
    try:
        yield double
    finally:
        double.close()
