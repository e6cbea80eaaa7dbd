"""Transcription: of a key that opted in, what it asks and is answered goes to the prompt log."""

from collections.abc import Awaitable

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.formats.transcripts import Transcript
from gateway.middleware.context import exchange_of
from gateway.model import Exchange, Principal
from gateway.ports import PromptLog, Spoken


class Transcription:
    """For all other keys one look, and nothing else."""

    def __init__(self, app: ASGIApp, *, prompts: PromptLog) -> None:
        self.app = app
        self.prompts = prompts

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        principal = exchange.principal if exchange.is_admitted else None
        if principal is None or principal.log_prompts_s is None:
            return self.app(scope, receive, send)
        return self._kept(principal, principal.log_prompts_s, scope, receive, send)

    async def _kept(
        self, principal: Principal, lives_s: int, scope: Scope, receive: Receive, send: Send
    ) -> None:
        exchange = exchange_of(scope)
        operation = exchange.operation.value if exchange.operation else ""
        exchange.transcript = transcript = Transcript(exchange.call, operation)
        try:
            await self.app(scope, receive, send)
        finally:
            # No await in here: a cancellation must not lose it.
            self.prompts.keep(_spoken(exchange, principal, lives_s, transcript))


def _spoken(exchange: Exchange, principal: Principal, lives_s: int, transcript: Transcript) -> Spoken:
    return Spoken(
        request_id=exchange.request_id,
        tenant_id=principal.tenant_id,
        account_id=principal.key_id,
        generation=principal.prompt_generation,
        lives_s=lives_s,
        size_bytes=transcript.held_bytes(exchange.bytes_in),
        transcript=transcript,
    )
