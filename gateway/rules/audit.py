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
# More than is kept: what is shortened, or begins before the cut, is to be seen whole.
LOOKED_AT: Final = 4 * MAX_TEXT
# nginx's word for "the client left before there was an answer"; it is never sent.
STATUS_CLIENT_LEFT: Final = 499

# A key, or as much of one as was pasted; never longer than one, so that two in a row are both found.
_KEY: Final = re.compile(r"nz_[0-9A-Za-z]{8}[0-9A-Za-z]{1,40}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


# Methods, paths, models and user agents come again and again.
@lru_cache(maxsize=1024)
def cleaned(text: str) -> str:
    """One printable line of at most MAX_TEXT characters; keys are cut to their public prefix.

    It is remembered: give no more of a text than LOOKED_AT characters.
    """
    shortened = _KEY.sub(lambda key: key[0][:11] + "…", text)
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", shortened)[:MAX_TEXT]


def outcome_of(error: GatewayError | None, status: int | None) -> Outcome:
    """How a request ended, unless the relay knows better."""
    if status is None:
        return Outcome.CLIENT_LEFT
    if error is None:
        return Outcome.SERVED
    return Outcome.BACKEND_FAILED if error.status in (502, 504) else Outcome.REFUSED


def row_of(exchange: Exchange, ended: float) -> AuditRow:
    """The row of a finished request. `ended` is on the clock of `exchange.started`."""
    principal, usage, timings, error = exchange.principal, exchange.usage, exchange.timings, exchange.error
    started, first_token, queued_s = exchange.started, exchange.first_token, exchange.queued_s
    theirs, agent, model = exchange.client_request_id, exchange.user_agent, exchange.model
    # Twice a request: texts are looked up, and numbers made, right here.
    return AuditRow(
        request_id=exchange.request_id,
        received_at_us=round(exchange.received_at * 1e6),
        tenant_id=principal.tenant_id if principal else None,
        key_id=principal.key_id if principal else None,
        key_prefix=principal.prefix if principal else None,
        peer=exchange.peer,
        client_request_id=theirs and cleaned(theirs[:LOOKED_AT]),
        user_agent=agent and cleaned(agent[:LOOKED_AT]),
        method=cleaned(exchange.method[:LOOKED_AT]),
        path=cleaned(exchange.path[:LOOKED_AT]),
        operation=str(exchange.operation) if exchange.operation else None,
        surface=str(exchange.surface),
        model=model and cleaned(model[:LOOKED_AT]),
        backend=exchange.backend,
        stream=exchange.stream,
        status=exchange.status or STATUS_CLIENT_LEFT,
        outcome=str(exchange.outcome or outcome_of(error, exchange.status)),
        error_code=error.code if error else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
        tokens_estimated=usage is not None and usage.estimated,
        first_token_ms=None if first_token is None else round((first_token - started) * 1e3, 3),
        queue_ms=None if queued_s is None else round(queued_s * 1e3, 3),
        load_ms=None if timings.load_ns is None else round(timings.load_ns / 1e6, 3),
        prompt_ms=None if timings.prompt_ns is None else round(timings.prompt_ns / 1e6, 3),
        generation_ms=None if timings.generation_ns is None else round(timings.generation_ns / 1e6, 3),
        duration_ms=round((ended - started) * 1e3, 3),
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
        method=cleaned(method[:LOOKED_AT]),
        path=cleaned(path[:LOOKED_AT].decode("latin-1")),
        surface=str(surface_of(path)),
        status=status,
        outcome=str(Outcome.REFUSED),
        error_code=MalformedRequest.code,
        duration_ms=round(duration_s * 1e3, 3),
        bytes_out=bytes_out,
    )
