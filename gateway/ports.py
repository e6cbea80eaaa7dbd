"""What the pipeline and the adapters ask of each other, without knowing each other.

An adapter turns its driver's errors into the few that are named here, in one place.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from attrs import field, frozen

from gateway.accounting import (
    Cold,
    Expired,
    LedgerEntry,
    Outlook,
    Plan,
    PromptSize,
    Refused,
    Stale,
    Sum,
    Taken,
    Verdict,
)
from gateway.errors import Unauthenticated
from gateway.formats.chat import UpstreamRequest
from gateway.formats.profiles import PhaseTimeouts
from gateway.model import AuditRow, JsonObject, Key, LoadedModel, ModelCard, Principal
from gateway.rules.floors import Floor
from gateway.rules.prompts import Learned
from gateway.rules.quota_headers import PastRefusal


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch, UTC. May jump."""

    def elapsed(self) -> float:
        """Seconds on a monotonic clock, for durations only."""


class NewId(Protocol):
    def __call__(self) -> str:
        """A new request id: unique, sortable by time, printable ASCII."""


@frozen
class Pulse:
    """What is current in the database: the revision of tenants and keys, and the time by its clock."""

    revision: int
    now: float


class KeyStore(Protocol):
    """Keys as they are kept. All raise StoreUnavailable when the database does not answer."""

    async def key_by_prefix(self, prefix: str) -> Key | None:
        """The key with this public prefix, revoked and expired ones included."""

    async def revision(self) -> int:
        """A number that grows with every change to tenants and keys."""


class PulsingKeyStore(KeyStore, Protocol):
    async def pulse(self) -> Pulse:
        """The revision, and what time it is by the database's clock."""


class Authenticator(Protocol):
    async def principal_of(self, token: str, epoch: int = 0) -> Principal | None:
        """Whose key this is; None for every key that is not to be let in, for whatever reason.

        What is answered was read at the revision `epoch` of tenants and keys, or after. Raises
        StoreUnavailable when it can't be known, Overloaded when too many keys are being checked.
        """

    def at_once(self, token: str) -> Principal | Unauthenticated | None:
        """The same, where it is known without waiting; None: ask `principal_of`."""

    @property
    def is_cut_off(self) -> bool:
        """The database does not answer: keys are judged by what is remembered."""


class KnownCallers(Protocol):
    """What has become of those who were let in."""

    @property
    def revision(self) -> int | None:
        """The latest revision of tenants and keys that is known here."""

    async def renewed(self, principal: Principal) -> Principal | None:
        """The same caller as it is known now; None when its key was revoked, or is no more.

        A key that has expired since is still that: what it began it may end. Raises StoreUnavailable,
        Overloaded.
        """


class Counters(Protocol):
    """Where limits and budgets are counted. Each call is atomic, and safe to repeat.

    All raise StoreUnavailable when the store does not answer within its deadline.
    """

    async def take(self, plan: Plan) -> Verdict:
        """Take everything that the plan wants, or nothing."""

    async def settle(self, tenant_id: str, reservation_id: str, tokens: int) -> None:
        """Replace what was reserved by what was used, give back the rest, and free the slots.

        `tokens` may be more than was reserved when a backend counted so. Also corrects what an expired
        lease was charged. An unknown or settled reservation changes nothing.
        """

    def settle_at_once(self, tenant_id: str, reservation_id: str, tokens: int) -> bool:
        """The same without waiting, which counters in this process can. False: nothing was done."""

    async def renew(self, tenant_id: str, reservation_ids: Sequence[str], lease_s: float) -> None:
        """Keep these leases for `lease_s` from now; those that are unknown or settled stay so."""

    async def expired(self) -> Sequence[Expired]:
        """Leases that ran out, in any process: a bounded number, each told until it is `heard` or settled."""

    async def heard(self, expired: Sequence[Expired]) -> None:
        """These were written down: nobody has to be told of them again."""

    async def is_my_turn(self, period_s: float) -> bool:
        """Whether this process is the one, of all that share the counters, to look after them this time.

        Of those that ask within `period_s`, the first is.
        """

    async def raise_epoch(self, tenant_id: str, epoch: int) -> None:
        """From now on take nothing for this tenant by what was read before this revision; never lowers it.

        For whoever changed a tenant or one of its keys, once that is committed: also a replica that can't
        read the change then refuses. A tenant that is cold stays so.
        """

    async def restore(
        self,
        tenant_id: str,
        sums: Sequence[Sum],
        intents: Sequence[LedgerEntry],
        lease_s: float,
        epoch: int = 0,
    ) -> None:
        """Tell what the ledger knows of a tenant. Nothing that the store has counted itself gets lower.

        To a store without this tenant, `intents` are the reservations that are still open: it holds them
        again, for `lease_s` from now, so that they can be renewed and settled. Of `sums`, what was spent
        counts: what is reserved is in the intents. `epoch` is as for `raise_epoch`.
        """

    async def forget(self, tenant_id: str) -> None:
        """Drop all that is counted for a tenant: the next `take` finds it Cold. For repairs."""

    async def look(self, plan: Plan) -> Outlook | Cold | Stale:
        """Where the takes of a plan stand now, and what `take` would answer. Takes nothing."""


class Allowances(Protocol):
    """Counters that know every tenant: where they were empty, the ledger has told them.

    All raise Outdated for what was read before the last change that the counters know of, StoreUnavailable,
    and LimitsUnavailable when the counters do not keep what they are told.
    """

    async def take(self, plan: Plan) -> Taken | Refused: ...

    async def look(self, plan: Plan) -> Outlook: ...

    async def confirm(self, tenant_id: str, epoch: int) -> None:
        """Whether the tenant and its keys are as they were at `epoch`: it raises when that is not known."""


class RefusalLog(Protocol):
    def of(self, key_id: str) -> Sequence[PastRefusal]:
        """The last refusals of a key, the newest first."""


class AuditStore(Protocol):
    async def write(self, rows: Sequence[AuditRow]) -> None:
        """Keep all rows, or none: then it raises StoreUnavailable, or Unstorable. Again changes nothing."""


class LedgerStore(Protocol):
    """What requests have cost: the truth. All raise StoreUnavailable when the database does not answer."""

    async def write(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep all entries, or none: then it raises StoreUnavailable, or Unstorable.

        In any order, and as often as you like: of each reservation the entry with the highest rank stays.
        """

    async def sums(self, tenant_id: str, periods: Sequence[str]) -> Sequence[Sum]:
        """What the tenant and its keys have spent and reserved in these periods (`Period.id`).

        Owners that have spent nothing in a period are not in it.
        """

    async def open_intents(self, tenant_id: str) -> Sequence[LedgerEntry]:
        """Reservations of which nothing better is known than that they were made."""

    async def entry(self, reservation_id: str) -> LedgerEntry | None:
        """What one reservation has cost, by the best evidence so far."""

    async def snapshot(
        self, tenant_id: str, periods: Sequence[str]
    ) -> tuple[Sequence[Sum], Sequence[LedgerEntry]]:
        """`sums` and `open_intents` of one moment: what counters are rebuilt from."""


class Quarantine(Protocol):
    async def keep(self, kind: str, record: bytes, reason: str) -> None:
        """Set aside what could not be stored, as it was. Raises StoreUnavailable. Again changes nothing."""


class Spool(Protocol):
    """What must survive a kill -9: on the local disk when the call returns."""

    def intent(self, entry: LedgerEntry, row: AuditRow | None = None) -> None:
        """Note a reservation, before anything is sent for it. Raises AuditUnavailable: then send nothing."""

    def settled(self, entry: LedgerEntry) -> None:
        """Note what became of an intent. Never raises: there is space kept for it."""


class Flush(Protocol):
    async def __call__(self) -> None:
        """Bring what was spooled before now into the ledger. Raises StoreUnavailable."""


class Drainage(Protocol):
    async def drained(self) -> None:
        """Return when the ledger has all that was spooled anywhere before now. Raises StoreUnavailable."""


class Replicas(Protocol):
    """Processes that share counters. All raise StoreUnavailable when the database does not answer."""

    async def now(self) -> float:
        """Seconds since the epoch by the database's clock, which is one for all."""

    async def report(self, name: str, drained_at: float) -> None:
        """All that this process had spooled at that time, by `now`, is in the ledger."""

    async def behind(self, since: float) -> Sequence[str]:
        """The live processes of which the ledger may lack something that they had spooled at that time."""

    async def remove(self, name: str) -> None:
        """This process is gone, and all of it is in the ledger."""


class Sink(Protocol):
    """Takes finished requests off the pipeline's hands. Never blocks, never raises."""

    def record(self, row: AuditRow) -> None: ...

    @property
    def is_full(self) -> bool:
        """True when it could not keep another row: then no new work may begin."""


class Transcript(Protocol):
    """What was said in one request: see `formats.transcripts`."""

    def written(self) -> JsonObject: ...


@frozen
class Spoken:
    """What was said in one request of a key that opted in, to be kept for `lives_s` from now.

    `generation` is how often the prompts of its account had been purged when it came. `size_bytes` is about
    what it takes in memory.
    """

    request_id: str
    tenant_id: str
    account_id: str
    generation: int
    lives_s: int
    size_bytes: int
    transcript: Transcript = field(repr=False)


class PromptLog(Protocol):
    def keep(self, spoken: Spoken) -> None:
        """Keep it, encrypted, if it can be. Never blocks, never raises."""


class PromptLore(Protocol):
    """What true counts have taught of a model's prompts, by its canonical name and its backend's kind."""

    def of(self, kind: str, model: str) -> Learned: ...

    def floor_of(self, tenant_id: str, kind: str, model: str) -> Floor:
        """Of the tenant's own prompts for the model."""

    def learn(
        self,
        tenant_id: str,
        kind: str,
        model: str,
        size: PromptSize,
        prompt_tokens: int,
        *,
        context: int | None,
    ) -> Learned:
        """What is known of the model after one more count, by a backend, of a prompt of this size."""


class Lifecycle(Protocol):
    """Whether this process still takes new work."""

    @property
    def draining(self) -> bool: ...


class Readiness(Protocol):
    def missing(self) -> Sequence[str]:
        """What it lacks to serve; none when ready.

        Of `starting`, `draining`, `database`, `redis`, `backend` and `spool`.
        """

    def backends_lacking(self) -> Mapping[str, Sequence[str]]:
        """What each backend lacks; those that lack nothing are left out.

        Of `reach`, `models`, `trust` (its circuit breaker is open) and `service` (it is drained). By the name
        that the operator gave, or a number: never by an address.
        """


class Answer(Protocol):
    """A backend's answer whose head has come. Leave the `async with` that gave it to let go of it."""

    status: int

    async def read(self) -> bytes:
        """What has come of the body, b"" at its end; waits for it. Raises BackendFailed when it breaks,
        BackendTimeout when it stalls.
        """

    async def push(self, take: Callable[[bytes], bool]) -> bool:
        """Give each piece to `take` as it comes, until it answers that the next one is to wait.

        False at the end of the body. Raises as `read` does, and what `take` raises. `take` may be called
        from outside of the task that waits here, which a piece need not wake.
        """

    async def body(self) -> bytes:
        """The whole body, up to a bound. Raises as `read` does."""


class Backend(Protocol):
    """A server that has models. `kind` is ollama or openai: which protocol it speaks."""

    name: str
    kind: str

    def send(
        self, request: UpstreamRequest, *, request_id: str, timeouts: PhaseTimeouts | None = None
    ) -> AbstractAsyncContextManager[Answer]:
        """POST the request. Entering raises BackendFailed or BackendTimeout; nothing is ever sent twice.

        `timeouts` go before the backend's own, where they say something.
        """

    def hold(self) -> None:
        """Stay open until `let_go`, though no longer listed: more is to be sent, as the parts of one call."""

    def let_go(self) -> None:
        """Once for each `hold`."""

    async def models(self) -> tuple[ModelCard, ...]:
        """What the backend has now. Raises BackendFailed or BackendTimeout."""

    async def loaded(self) -> tuple[LoadedModel, ...]:
        """What the backend has in memory now. Raises as `models` does."""

    async def ask(self, request: UpstreamRequest, *, request_id: str, timeout_s: float) -> tuple[int, bytes]:
        """Status and body of what is soon answered, beside the callers' requests. Raises as `models` does."""

    async def completed(self, card: ModelCard) -> ModelCard:
        """The card with what the list leaves open, above all the context. Raises as `models` does.

        At once, and as it is, where nothing more can be had.
        """


@frozen
class Offer:
    """A backend that has a model, and how it describes it, as of the last time that it was asked."""

    backend: Backend
    card: ModelCard
    is_up: bool
    """It answered then."""
    is_warm: bool
    """It had the model in memory then."""


class Catalogue(Protocol):
    """Which backend has which model, learned in the background."""

    async def find(self, model: str) -> tuple[Backend, ModelCard] | None:
        """A backend that has the model of this (caller's) name, and how that writes it.

        Raises BackendFailed when no backend answers, so that it can't be known.
        """

    def cards(self) -> tuple[ModelCard, ...]:
        """All models, merged over the backends by canonical name."""

    def loaded(self) -> tuple[tuple[ModelCard, LoadedModel], ...]:
        """Those that a backend has in memory, merged alike, as of the last time that they were asked."""

    @property
    def is_ready(self) -> bool:
        """True when at least one backend answers."""


class Offers(Protocol):
    """All that have a model, and not just the first."""

    async def offers(self, model: str) -> Sequence[Offer]:
        """In the operator's order. Raises as `Catalogue.find` does."""

    def ask_loaded(self, backend: Backend) -> None:
        """Ask this one soon what it has in memory: it has loaded a model."""


class Targets(Protocol):
    """Where requests go."""

    async def find(self, model: str) -> tuple[Backend, ModelCard] | None:
        """The backend that is best for a request that comes now. Raises as `Catalogue.find` does."""
