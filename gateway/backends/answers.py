"""What the answers of a backend have in common, by whichever client they come."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import Final, Self

from attrs import evolve, frozen

from gateway.config import MIB
from gateway.errors import BackendFailed
from gateway.formats.profiles import PhaseTimeouts

# No answer of a model comes near: 32 MiB is a million tokens of JSON. A backend that sends more is broken.
_MAX_BODY_BYTES: Final = 32 * MIB
# Ollama writes its last chunk right behind its last frame.
END_WAIT_S: Final = 0.25
STOPPED: Final = "The model backend stopped in the middle of its answer."


@frozen
class BackendTimeouts:
    """Seconds for each phase of a call."""

    connect_s: float
    first_byte_s: float
    chunk_gap_s: float
    answer_s: float
    """A whole answer that is not streamed."""

    @cached_property
    def plain(self) -> Self:
        """Of what is not streamed: it has its first byte when the last token is there."""
        return evolve(self, first_byte_s=self.answer_s)

    def over(self, other: PhaseTimeouts) -> Self:
        """With what the other says in place of these."""
        return evolve(
            self,
            first_byte_s=other.first_byte_s or self.first_byte_s,
            chunk_gap_s=other.chunk_gap_s or self.chunk_gap_s,
            answer_s=other.answer_s or self.answer_s,
        )


class HttpAnswer(ABC):
    """One call: `async with` sends it and waits for the head; leaving lets go, unread parts included.

    Whoever leaves without an error has read what it wanted: then the end of the answer gets a moment to
    come, so that the connection can be used again.
    """

    def __init__(self, use: Callable[[int], None], timeouts: BackendTimeouts, credential: str | None) -> None:
        self._use = use
        self._timeouts = timeouts
        self._credential = credential
        self.status = 0

    async def __aenter__(self) -> Self:
        self._use(1)
        try:
            await self._open()
        except BaseException:
            self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self._end()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._let_go()
        self._use(-1)

    @abstractmethod
    async def _open(self) -> None:
        """Send it, and wait for the head."""

    @abstractmethod
    async def _end(self) -> None:
        """Wait for the end for END_WAIT_S; what still comes is nothing that anybody reads."""

    @abstractmethod
    def _let_go(self) -> None:
        """An answer that was not read to its end must stop the backend's work: close its connection. Keep
        that of one that was.
        """

    @abstractmethod
    async def read(self) -> bytes:
        """What has come of the body, b"" at its end: its first piece within the first byte's time, others
        within a chunk gap.
        """

    async def push(self, take: Callable[[bytes], bool]) -> bool:
        """Give each piece to `take`, until it answers that the next one is to wait; False at the end."""
        while piece := await self.read():
            if not take(piece):
                return True
        return False

    async def body(self, max_bytes: int = _MAX_BODY_BYTES) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > max_bytes:
                raise BackendFailed("The model backend sent an answer that is too large.")
            pieces.append(piece)
        whole = b"".join(pieces)
        return whole if self.status == 200 else self._without_credential(whole)

    def _without_credential(self, body: bytes) -> bytes:
        """An error that repeats what it was sent may reach a caller, but not with our credential in it."""
        if not self._credential:
            return body
        return body.replace(self._credential.encode(), "…".encode())
