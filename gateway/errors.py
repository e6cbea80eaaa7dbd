"""One class per outcome that a client can see: its status, its code and its sentence.

A rule *returns* such an error as its verdict; a layer raises it; `middleware.errors` renders it in
the caller's dialect. The sentence says what happened, what was expected and what to do, and
nothing about our insides.
"""

from typing import ClassVar, Literal

# What the official clients of OpenAI and Anthropic go by before they look at the status.
_DO_NOT_RETRY = (b"x-should-retry", b"false")


class GatewayError(Exception):
    """Base of all outcomes. `param` names the offending field of the body, as a path."""

    status: ClassVar[int] = 503
    code: ClassVar[str] = "internal_error"
    # Seconds until a retry makes sense; rendered as Retry-After. None: retrying changes nothing.
    retry_after_s: int | None = None

    def __init__(self, sentence: str, *, param: str | None = None) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.param = param

    def headers(self, chance: float = 0.0) -> list[tuple[bytes, bytes]]:
        """Headers that belong to this outcome whatever the dialect.

        `chance`, from 0 up to 1, is of a 503: whoever is refused by the same outage comes back within
        Retry-After and as long again, not all in the same second.
        """
        if self.retry_after_s is None:
            return []
        wait_s = max(1, self.retry_after_s)
        if self.status == 503:
            wait_s += int(chance * (wait_s + 1))
        return [(b"retry-after", b"%d" % wait_s)]


# ── 4xx: the request can't be served as it is ────────────────────────────────────────────


class MalformedRequest(GatewayError):
    """The target or a header can be read in more than one way, or in none."""

    status = 400
    code = "malformed_request"


class InvalidRequest(GatewayError):
    """The body is not what this route takes."""

    status = 400
    code = "invalid_request"


class UnsupportedField(InvalidRequest):
    """A field that would change the answer and that can't be honoured here."""

    code = "unsupported_parameter"


class ContextLengthExceeded(InvalidRequest):
    """The prompt is longer than the model's context."""

    code = "context_length_exceeded"


class RequestTooExpensive(InvalidRequest):
    """It needs more tokens than a limit or budget ever allows: waiting does not help, a shorter one does."""

    code = "request_too_expensive"


class Unauthenticated(GatewayError):
    """No key, or one that is wrong, revoked or expired: all look alike."""

    status = 401
    code = "invalid_api_key"

    def __init__(self) -> None:
        super().__init__(
            "A valid API key is required: send it as 'Authorization: Bearer nz_…'. "
            "The key may be missing, mistyped, revoked or expired; ask whoever runs this gateway for one."
        )

    def headers(self, chance: float = 0.0) -> list[tuple[bytes, bytes]]:  # noqa: ARG002
        return [(b"www-authenticate", b"Bearer")]


class MutationBlocked(GatewayError):
    """A route that changes the models: never served, to nobody."""

    status = 403
    code = "blocked_mutation"

    def __init__(self) -> None:
        super().__init__(
            "This gateway never pulls, pushes, creates, copies or deletes models; "
            "its operator does that on the backend."
        )


class TenantSuspended(GatewayError):
    """The key is good; its tenant may not use this gateway at the moment."""

    status = 403
    code = "tenant_suspended"

    def __init__(self) -> None:
        super().__init__(
            "The tenant that this API key belongs to is suspended; ask whoever runs this gateway."
        )


class AddressNotAllowed(GatewayError):
    """The key is good, but not from here. The sentence tells the address, so that it can be allowed."""

    status = 403
    code = "address_not_allowed"

    def __init__(self, peer: str) -> None:
        super().__init__(
            f"This API key may not be used from the address {peer}; "
            "ask whoever runs this gateway to allow it."
        )


class RouteNotFound(GatewayError):
    """Default deny: the path is not in the table."""

    status = 404
    code = "not_found"

    def __init__(self) -> None:
        super().__init__("There is nothing at this path; see the routes in this gateway's documentation.")


class ModelNotFound(GatewayError):
    """The model does not exist, or is not for this caller: both look alike."""

    status = 404
    code = "model_not_found"

    def __init__(self, model: str) -> None:
        super().__init__(f"The model '{model}' does not exist or you have no access to it.", param="model")
        self.model = model


class MethodNotAllowed(GatewayError):
    """A known path with a method that it does not have. `allow` is the value of the Allow header."""

    status = 405
    code = "method_not_allowed"

    def __init__(self, allow: str) -> None:
        super().__init__(f"This path answers {allow} only.")
        self.allow = allow

    def headers(self, chance: float = 0.0) -> list[tuple[bytes, bytes]]:  # noqa: ARG002
        return [(b"allow", self.allow.encode("ascii"))]


class BodyTooSlow(GatewayError):
    status = 408
    code = "request_timeout"

    def __init__(self) -> None:
        super().__init__("The request body came too slowly; send it again over a better connection.")


class BodyTooLarge(GatewayError):
    status = 413
    code = "request_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(
            f"The request body is larger than the {limit_bytes} bytes that this gateway accepts."
        )


class UnsupportedMediaType(GatewayError):
    status = 415
    code = "unsupported_media_type"

    def __init__(self) -> None:
        super().__init__(
            "The body must be JSON: send 'Content-Type: application/json' and no Content-Encoding."
        )


class MisdirectedRequest(GatewayError):
    """The Host header names a site that this gateway does not serve."""

    status = 421
    code = "misdirected_request"

    def __init__(self) -> None:
        super().__init__(
            "This gateway does not serve the host that the request names; use the address you were given."
        )


class RateLimited(GatewayError):
    """A limit per minute, or on requests at the same time, is reached.

    `unit` is what it counts; of concurrency it is requests. `may_retry` is False where only the operator
    can help; then the official clients do not try again by themselves.
    """

    status = 429
    code = "rate_limit_exceeded"
    unit: Literal["requests", "tokens"] = "requests"
    may_retry = True

    def __init__(
        self,
        sentence: str,
        *,
        retry_after_s: int,
        unit: Literal["requests", "tokens"] = "requests",
        may_retry: bool = True,
    ) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s
        self.unit = unit
        self.may_retry = may_retry

    def headers(self, chance: float = 0.0) -> list[tuple[bytes, bytes]]:
        return super().headers(chance) + ([] if self.may_retry else [_DO_NOT_RETRY])


class InsufficientQuota(GatewayError):
    """A budget is spent. Its window turns too late for a client to wait for it."""

    status = 429
    code = "insufficient_quota"

    def __init__(self, sentence: str, *, retry_after_s: int) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s

    def headers(self, chance: float = 0.0) -> list[tuple[bytes, bytes]]:
        return [*super().headers(chance), _DO_NOT_RETRY]


# ── 5xx: a backend, or our own fault ─────────────────────────────────────────────────────


class BackendFailed(GatewayError):
    """A backend refused the connection, broke it, or answered what can't be read."""

    status = 502
    code = "backend_failed"


class BackendUnreachable(BackendFailed):
    """No connection came about, so nothing was sent: another backend may be asked instead."""


class BackendTimeout(GatewayError):
    status = 504
    code = "backend_timeout"


class ConnectTimeout(BackendTimeout):
    """No connection came about in time, so nothing was sent: another backend may be asked instead."""


class BackendBusy(GatewayError):
    status = 503
    code = "backend_busy"
    retry_after_s = 5


class QueueFull(GatewayError):
    """All slots of the backend are busy, and one can't be had in time."""

    status = 503
    code = "queue_full"

    def __init__(self, sentence: str, retry_after_s: int) -> None:
        super().__init__(f"{sentence} Try again in about {retry_after_s} s.")
        self.retry_after_s = retry_after_s


class Overloaded(GatewayError):
    """We are out of some bounded resource: memory for bodies, hashing, connections."""

    status = 503
    code = "overloaded"
    retry_after_s = 2


class Draining(GatewayError):
    """This process is shutting down; another one, or this one restarted, will serve."""

    status = 503
    code = "draining"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("This gateway is restarting; try again in a few seconds.")


class StoreUnavailable(GatewayError):
    """The database did not answer. Adapters turn their driver's errors into this one."""

    status = 503
    code = "store_unavailable"
    retry_after_s = 5

    def __init__(
        self, sentence: str = "The gateway can't reach its database at the moment; try again shortly."
    ) -> None:
        super().__init__(sentence)


class LimitsUnavailable(StoreUnavailable):
    """What can't be checked is refused: the store of limits and budgets does not answer, or is not ready."""

    code = "limits_unavailable"
    retry_after_s = 2

    def __init__(self) -> None:
        super().__init__("The gateway can't check limits and budgets at the moment; try again shortly.")


class Outdated(LimitsUnavailable):
    """The request was judged by what has changed since: it has to be judged anew, as of `epoch`.

    Nobody sees this unless that fails again and again.
    """

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch


class AuditUnavailable(GatewayError):
    """Nothing passes unaudited: the buffer of unwritten audit rows is full."""

    status = 503
    code = "audit_unavailable"
    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__("The gateway can't keep its audit log at the moment; try again shortly.")


class InternalError(GatewayError):
    """A defect of ours. The log has the details under the request id; the caller does not."""

    retry_after_s = 5

    def __init__(self) -> None:
        super().__init__(
            "The gateway failed to handle this request; the operator finds it by its x-request-id."
        )


class ClientLeft(Exception):
    """The caller is gone: no outcome that it could see, so no GatewayError. Work for it ends."""


class Unstorable(Exception):
    """Something in the data can't be kept as it is; trying again changes nothing: it has to be set aside."""
