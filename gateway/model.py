"""The words of the house: values that every floor speaks of. Frozen, save the Exchange."""

import ipaddress
from enum import StrEnum
from typing import Any, Final

from attrs import define, field, frozen

from gateway.accounting import Plan, Policy, PromptSize, Take
from gateway.errors import GatewayError

# A JSON object as it was parsed: the payload itself is the one bare dict that travels.
JsonObject = dict[str, Any]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Surface(StrEnum):
    """Whose protocol a route speaks, and so in whose dialect its errors are."""

    OLLAMA = "ollama"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Operation(StrEnum):
    """What a caller can ask for: one member for each row of `rules.endpoints`."""

    ROOT = "root"
    DOCS = "docs"
    OPENAPI = "openapi"
    VERSION = "version"
    TAGS = "tags"
    PS = "ps"
    SHOW = "show"
    CHAT = "chat"
    GENERATE = "generate"
    EMBED = "embed"
    LEGACY_EMBEDDINGS = "legacy_embeddings"
    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    RESPONSES = "responses"
    COUNT_TOKENS = "count_tokens"
    MODELS = "models"
    MODEL = "model"
    USAGE = "usage"
    HEALTH = "health"
    READINESS = "readiness"

    @property
    def is_public(self) -> bool:
        """Answered without a key: says nothing that an outsider may not know."""
        return self in _PUBLIC

    @property
    def is_inference(self) -> bool:
        """Asks a model."""
        return self in _INFERENCE

    @property
    def reads_body(self) -> bool:
        return self in _INFERENCE or self is Operation.SHOW


_PUBLIC: Final = frozenset(
    {Operation.ROOT, Operation.DOCS, Operation.OPENAPI, Operation.HEALTH, Operation.READINESS}
)
_INFERENCE: Final = frozenset(
    {
        Operation.CHAT,
        Operation.GENERATE,
        Operation.EMBED,
        Operation.LEGACY_EMBEDDINGS,
        Operation.CHAT_COMPLETIONS,
        Operation.COMPLETIONS,
        Operation.EMBEDDINGS,
        Operation.MESSAGES,
        Operation.RESPONSES,
        Operation.COUNT_TOKENS,
    }
)


@frozen
class Route:
    """What a target means: its operation, the surface, and the model that the path names, if any."""

    operation: Operation
    surface: Surface
    model: str | None = None


@frozen
class RequestHead:
    """The headers that decide anything, by lower-case name; see `rules.request_head`."""

    fields: dict[bytes, bytes]
    repeated: bytes | None = None
    """A header that came twice though it must not."""

    def text(self, name: bytes) -> str | None:
        value = self.fields.get(name)
        return None if value is None else value.decode("latin-1")


class KeyStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    """Its tenant is; else it would be active."""
    EXPIRED = "expired"
    REVOKED = "revoked"


@frozen
class ModelPolicy:
    """What an operator lets a tenant, or a key, do with models. None: no bound here; both always apply.

    `models` are patterns over canonical names (`rules.access`); the others are tokens of one request.
    """

    models: tuple[str, ...] | None = None
    max_num_ctx: int | None = None
    max_output_tokens: int | None = None


@frozen
class Tenant:
    """Who owns keys. Times are seconds since the epoch, UTC."""

    id: str
    name: str
    created_at: float
    policy: Policy = field(factory=Policy)
    time_zone: str = "UTC"
    """An IANA name: in it the tenant's days and months begin."""
    models: ModelPolicy = field(factory=ModelPolicy)
    allow_cloud: bool = False
    """Its prompts may leave the box: models that another machine answers for are there for it, too."""
    suspended_at: float | None = None
    """Since then all of its keys are refused; None while they are not."""
    weight: int = 1
    """Of a busy backend it gets so much, beside other tenants that wait."""
    audit_retention_days: int | None = None
    """For so many days its audit rows are kept; None: as long as all others."""


@frozen
class Key:
    """An API key as it is stored: never the key itself. Times are seconds since the epoch, UTC."""

    id: str
    tenant: Tenant
    name: str
    prefix: str
    """Public: `nz_` and eight base62 characters."""
    mac: bytes = field(repr=False)
    """HMAC-SHA256 of the whole key under GATEWAY_SECRET, 32 bytes."""
    argon2: str = field(repr=False)
    """Argon2id of the whole key, as a PHC string."""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    policy: Policy = field(factory=Policy)
    models: ModelPolicy = field(factory=ModelPolicy)
    account_id: str = ""
    """As what it is limited, charged and audited; "" for its own id. A key and its successors share it."""
    allow_ip: tuple[Network, ...] = ()
    """From where it may be used; none: from anywhere."""
    log_prompts_s: int | None = None
    """For how many seconds what it asks and is answered is kept, encrypted; None: nothing of it is kept."""
    prompt_generation: int = 0
    """Grows with each purge of its prompts: what was asked under another one is not kept any more."""

    @property
    def account(self) -> str:
        return self.account_id or self.id

    def status(self, now: float) -> KeyStatus:
        if self.revoked_at is not None:
            return KeyStatus.REVOKED
        if self.expires_at is not None and self.expires_at <= now:
            return KeyStatus.EXPIRED
        return KeyStatus.ACTIVE if self.tenant.suspended_at is None else KeyStatus.SUSPENDED


@frozen
class Principal:
    """Who is asking, once it is known."""

    tenant_id: str
    tenant: str
    key_id: str
    """Of its account (`Key.account`): a key that was rotated and its successor are one."""
    key: str
    prefix: str
    tenant_policy: Policy = field(factory=Policy)
    key_policy: Policy = field(factory=Policy)
    time_zone: str = "UTC"
    tenant_models: ModelPolicy = field(factory=ModelPolicy)
    key_models: ModelPolicy = field(factory=ModelPolicy)
    allow_cloud: bool = False
    is_suspended: bool = False
    allow_ip: tuple[Network, ...] = ()
    weight: int = 1
    """The tenant's, in a queue."""
    log_prompts_s: int | None = None
    prompt_generation: int = 0
    epoch: int = field(default=0, eq=False)
    """The revision of tenants and keys (`ports.KeyStore.revision`) that this was read at, or after."""


@frozen
class Usage:
    """Tokens of one request, as the backend counted them, or as we did (`estimated`).

    `reasoning_tokens` are those of the completion that were thinking; None where the backend does not say.
    """

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Of several answers to one request."""
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            estimated=self.estimated or other.estimated,
            reasoning_tokens=_sum_of_known(self.reasoning_tokens, other.reasoning_tokens),
        )


def _sum_of_known(one: int | None, two: int | None) -> int | None:
    return one if two is None else two + (one or 0)


def plus(one: Usage | None, two: Usage | None) -> Usage | None:
    """What is known of both; None where nothing is."""
    return one + two if one and two else one or two


@frozen
class Timings:
    """Where a backend says its time went, in nanoseconds. None where it does not say."""

    total_ns: int | None = None
    load_ns: int | None = None
    prompt_ns: int | None = None
    generation_ns: int | None = None

    def __add__(self, other: "Timings") -> "Timings":
        """Of several answers, one after another."""
        return Timings(
            _plus(self.total_ns, other.total_ns),
            _plus(self.load_ns, other.load_ns),
            _plus(self.prompt_ns, other.prompt_ns),
            _plus(self.generation_ns, other.generation_ns),
        )


def _plus(one: int | None, two: int | None) -> int | None:
    return one if two is None else two + (one or 0)


class Engine(StrEnum):
    """Servers of kind openai that are known by what they say of themselves: they can count a prompt."""

    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"


@frozen
class ModelCard:
    """A model as a backend lists it. `name` is as the backend writes it: what is sent upstream.

    `modified_at` is seconds since the epoch, or None where the backend does not say. `digest` is 64
    hexadecimal digits, or "". `details` has Ollama's six keys, all of them. `capabilities` are Ollama's words
    (`tools`, `thinking`, `vision`, …), or None where the backend does not say. `context` is in tokens, None
    where it is not known: on Ollama what the model was trained for, elsewhere what one request can have.
    `own` is what the model puts before each prompt by itself, as far as its backend tells. `info` are plain
    values of its file (`general.architecture`, …), and `parameters` the lines of its Modelfile's.
    `leaves`: the backend has another machine answer for it.
    """

    name: str
    modified_at: float | None = None
    size: int = 0
    digest: str = ""
    details: JsonObject = field(factory=dict)
    owned_by: str = "library"
    capabilities: frozenset[str] | None = None
    engine: Engine | None = None
    context: int | None = None
    own: PromptSize = field(factory=PromptSize)
    info: JsonObject = field(factory=dict)
    parameters: str = ""
    leaves: bool = False


@frozen
class LoadedModel:
    """A model that a backend has in memory, by the backend's name for it. Sizes are bytes, 0 if unknown.

    `expires_at` is seconds since the epoch, None where it stays; `context` is what it was loaded with.
    """

    name: str
    expires_at: float | None = None
    size: int = 0
    size_vram: int = 0
    context: int | None = None


@frozen
class BackendState:
    """A backend as operators see it: how many models it lists, and how many of them it has in memory."""

    name: str
    kind: str
    is_up: bool
    models: int
    loaded: int


class Outcome(StrEnum):
    """How a request ended, in the audit log's words."""

    SERVED = "served"
    REFUSED = "refused"
    """We said no: any 4xx or 503 of ours."""
    CLIENT_LEFT = "client_left"
    BACKEND_FAILED = "backend_failed"
    """A backend broke, before or in the answer."""
    CUT = "cut"
    """We ended the answer ourselves: a drain that ran out of time, or a fault of ours."""


@frozen(slots=False)
class Demand:
    """What a request asks for, in tokens: at most so many of its prompt, and of each run's output.

    `size` and `context` are what the bound was made of; `spared` is how many of it the prompt most likely
    does not have. `counted` is what the backend's tokenizer said of the prompt, where it was asked.
    """

    prompt_bound: int
    output: int
    runs: int = 1
    size: PromptSize = field(factory=PromptSize)
    context: int | None = None
    spared: int = 0
    counted: int | None = None


@define
class Exchange:
    """One request on its way: the one thing that changes.

    Each layer writes its own slots and reads those above; there is no other channel between
    layers. Times are seconds on the monotonic clock unless a name says otherwise.
    """

    # Audit
    request_id: str
    received_at: float
    """Seconds since the epoch, UTC."""
    started: float
    method: str
    path: str
    """For the audit row only: cleaned, redacted, cut. Decisions are made on `route`."""
    peer: str
    head: RequestHead
    route: Route | GatewayError
    surface: Surface
    client_request_id: str | None = None
    user_agent: str | None = None
    # MutationBlock
    operation: Operation | None = None
    # Auth
    principal: Principal | None = None
    # Intake
    body: JsonObject = field(factory=dict)
    bytes_in: int = 0
    is_heavy: bool = False
    """Work on what it asks takes so long that it is done in a thread."""
    # Target: a call of `formats.chat` as it was asked and as it is granted, and the backend and card that
    # serve it (`ports.Catalogue.find`)
    asked: Any = None
    call: Any = None
    target: Any = None
    profile: Any = None
    """The profile that the caller's name stands for (`formats.profiles`), if it is one."""
    timeouts: Any = None
    """Those of the profile (`formats.profiles.PhaseTimeouts`), where it has its own."""
    output_cap: int | None = None
    """Tokens of output that this caller may have of this model at most, where somebody said so."""
    model: str | None = None
    stream: bool = False
    # Limits and Budgets
    takes: tuple[Take, ...] = ()
    demand: Demand | None = None
    plan: Plan | None = None
    # Transcription: what is said and answered (`formats.transcripts`), where the key opted in
    transcript: Any = None
    # Admission
    headers: list[tuple[bytes, bytes]] = field(factory=list)
    """What a refusal tells beside its own headers."""
    is_admitted: bool = False
    """Its intent is in the spool, and what is known of it for the audit with that."""
    output_allowed: int | None = None
    """Tokens of output that were granted: what is sent upstream, and cut at."""
    # The endpoint and its relay
    backend: str | None = None
    queued_s: float | None = None
    """How long it waited for a slot of the backend; None when it had not to."""
    busy_s: float = 0.0
    """How long its backend is likely to be at work on it after it has ended: its caller left."""
    is_dispatched: bool = False
    """The backend has, or may have, begun to work: from here on it costs."""
    pieces: int = 0
    """Pieces of the answer that passed, each at least a token; where nobody counts, calls by their bytes."""
    counted: Usage | None = None
    """What the backend counted, if it did."""
    is_all_counted: bool = False
    """The last of its answers has ended: nothing can come any more that costs."""
    usage: Usage | None = None
    """What is told: counted, or estimated."""
    timings: Timings = Timings()
    first_token: float | None = None
    # Eviction: why it has to end before its time
    evicted: GatewayError | None = None
    # Errors: what the client was told, also after the first byte
    error: GatewayError | None = None
    # Audit, on the way out
    status: int | None = None
    bytes_out: int = 0
    outcome: Outcome | None = None
    is_recorded: bool = False


@frozen(kw_only=True, slots=False)
class AuditRow:
    """What is kept of one request: metadata only, every text cleaned and bounded by `rules.audit`.

    `received_at` is microseconds since the epoch, durations are milliseconds, sizes bytes.
    What has a default is not known of every request. Whoever writes it down takes `vars` of it.
    """

    request_id: str
    received_at_us: int
    tenant_id: str | None = None
    key_id: str | None = None
    key_prefix: str | None = None
    peer: str
    client_request_id: str | None = None
    user_agent: str | None = None
    method: str
    path: str
    operation: str | None = None
    surface: str
    model: str | None = None
    backend: str | None = None
    stream: bool = False
    status: int
    outcome: str
    error_code: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    tokens_estimated: bool = False
    first_token_ms: float | None = None
    queue_ms: float | None = None
    load_ms: float | None = None
    prompt_ms: float | None = None
    generation_ms: float | None = None
    duration_ms: float
    bytes_in: int = 0
    bytes_out: int
