"""The audit log's vocabulary: what is kept of a request, cleaned and bounded.

An allow-list: a field that is not copied here is not kept. No key, prompt or header value passes
save the three that are named (user agent, the caller's request id, its model name), and these without control
characters, without anything that looks like a key, and cut.
"""

import re
from functools import lru_cache
from typing import Final

from gateway.errors import GatewayError, MalformedRequest
from gateway.model import AuditRow, Exchange, Outcome
from gateway.rules.endpoints import surface_of

MAX_TEXT: Final = 200
# nginx's word for "the client left before there was an answer"; it is never sent.
STATUS_CLIENT_LEFT: Final = 499

# A key, or as much of one as was pasted; never longer than one, so that two in a row are both found.
_KEY: Final = re.compile(r"nz_[0-9A-Za-z]{8}[0-9A-Za-z]{1,40}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def cleaned(text: str | None) -> str | None:
    """One printable line of at most MAX_TEXT characters; keys are cut to their public prefix."""
    return None if text is None else _cleaned(text[: 4 * MAX_TEXT])


# Methods, paths, models and user agents come again and again.
@lru_cache(maxsize=1024)
def _cleaned(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", _KEY.sub(lambda key: key[0][:11] + "…", text))[
        :MAX_TEXT
    ]


def outcome_of(error: GatewayError | None, status: int | None) -> Outcome:
    """How a request ended, unless the relay knows better."""
    if status is None:
        return Outcome.CLIENT_LEFT
    if error is None:
        return Outcome.SERVED
    return Outcome.BACKEND_FAILED if error.status in (502, 504) else Outcome.REFUSED


def row_of(exchange: Exchange, ended: float) -> AuditRow:
    """The row of a finished request. `ended` is on the clock of `exchange.started`."""
    principal, usage, timings = exchange.principal, exchange.usage, exchange.timings
    return AuditRow(
        request_id=exchange.request_id,
        received_at_us=round(exchange.received_at * 1e6),
        tenant_id=principal.tenant_id if principal else None,
        key_id=principal.key_id if principal else None,
        key_prefix=principal.prefix if principal else None,
        peer=exchange.peer,
        client_request_id=cleaned(exchange.client_request_id),
        user_agent=cleaned(exchange.user_agent),
        method=cleaned(exchange.method) or "",
        path=cleaned(exchange.path) or "",
        operation=exchange.operation.value if exchange.operation else None,
        surface=exchange.surface.value,
        model=cleaned(exchange.model),
        backend=exchange.backend,
        stream=exchange.stream,
        status=exchange.status or STATUS_CLIENT_LEFT,
        outcome=(exchange.outcome or outcome_of(exchange.error, exchange.status)).value,
        error_code=exchange.error.code if exchange.error else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        tokens_estimated=bool(usage and usage.estimated),
        first_token_ms=None if exchange.first_token is None else _ms(exchange.first_token - exchange.started),
        queue_ms=None if exchange.queued_s is None else _ms(exchange.queued_s),
        load_ms=_ns_to_ms(timings.load_ns),
        prompt_ms=_ns_to_ms(timings.prompt_ns),
        generation_ms=_ns_to_ms(timings.generation_ns),
        duration_ms=_ms(ended - exchange.started),
        bytes_in=exchange.bytes_in,
        bytes_out=exchange.bytes_out,
    )


def row_of_refused(
    *,
    request_id: str,
    received_at: float,
    method: str,
    target: bytes,
    peer: str,
    status: int,
    duration_s: float,
    bytes_out: int,
) -> AuditRow:
    """The row of a request that the server refused itself, for its head or for a body that broke at once.

    Nothing in it is believed but its first line, and of that the query is not kept; so there is no tenant,
    no operation, no model, and `peer` is who is connected, whatever a proxy says. `received_at` is seconds
    since the epoch.
    """
    path = target.partition(b"?")[0]
    return AuditRow(
        request_id=request_id,
        received_at_us=round(received_at * 1e6),
        peer=peer,
        method=cleaned(method) or "",
        path=cleaned(path.decode("latin-1")) or "",
        surface=surface_of(path).value,
        status=status,
        outcome=Outcome.REFUSED.value,
        error_code=MalformedRequest.code,
        duration_ms=_ms(duration_s),
        bytes_out=bytes_out,
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)


def _ns_to_ms(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e6, 3)
