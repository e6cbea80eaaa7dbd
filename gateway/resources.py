"""Everything that has to be opened: built closed, opened in order, closed backwards."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from attrs import evolve
from loguru import logger

from gateway.backends.answers import BackendTimeouts
from gateway.backends.discovery import Discovery
from gateway.backends.pool import Pool
from gateway.config import BackendConfig, Config
from gateway.errors import StoreUnavailable
from gateway.formats.profiles import Profile
from gateway.middleware.eviction import Running
from gateway.middleware.settler import LEASE_S, Settler
from gateway.middleware.tokenizers import Tokenizers
from gateway.ports import Backend, Counters, Sink
from gateway.proxy.queue import QueueBounds
from gateway.proxy.router import Router
from gateway.rules.audit_chain import Chain
from gateway.rules.breaker import BreakerState
from gateway.server.lifecycle import Lifecycle
from gateway.sinks.logs import RequestLog
from gateway.sinks.loop_lag import LoopLag
from gateway.sinks.metrics import Metrics, Observe
from gateway.sinks.recent_refusals import RecentRefusals
from gateway.sinks.traces import traces_to
from gateway.spool.fleet import FleetSpools
from gateway.spool.spool import Spool, SpoolUnusable
from gateway.state.followed import Followed
from gateway.state.hasher import Hasher
from gateway.state.key_cache import VerifiedKeys
from gateway.state.local_counters import LocalCounters
from gateway.state.prompt_log import PromptLog
from gateway.state.prompt_lore import PromptLore
from gateway.state.restored_counters import RestoredCounters
from gateway.state.rounds import Chore, Rounds
from gateway.state.sealing import Sealer
from gateway.state.secret import confirm_secret, load_secret
from gateway.state.upkeep import Upkeep, settle_all
from gateway.storage.audit import AuditLog
from gateway.storage.audit_retention import Retention
from gateway.storage.drains import Drains
from gateway.storage.engines import audit_days, database_at, serving
from gateway.storage.keys import Keys
from gateway.storage.ledger import Ledger
from gateway.storage.meta import Meta
from gateway.storage.profiles import Profiles
from gateway.storage.prompts import Prompts
from gateway.storage.quarantine import Quarantine
from gateway.storage.refusals import Refused
from gateway.storage.replicas import Replicas
from gateway.storage.tenants import Tenants
from gateway.storage.timed import TimedDatabase
from gateway.storage.uncounted import Uncounted

if TYPE_CHECKING:
    from gateway.state.redis_counters import RedisCounters

# How often the audit log gets room for days to come. What is over its time is removed once a day.
RETENTION_S = 600.0
_RANDOM_BYTES: Final = 10
_IDS_AT_ONCE: Final = 256
# SPEC has them gone ten minutes after their time; a look costs two indexes that are empty.
EXPIRE_PROMPTS_S = 30.0


class SystemClock:
    """`ports.Clock` on the machine's clocks."""

    now = staticmethod(time.time)
    elapsed = staticmethod(time.monotonic)


class RequestIds:
    """48 bits of milliseconds and 80 random bits: sorts by time, never guessed, never twice.

    The kernel is asked for the randomness of some hundred ids at once. For one event loop.
    """

    def __init__(self) -> None:
        self._random: list[str] = []

    def __call__(self) -> str:
        if not self._random:
            pool = os.urandom(_IDS_AT_ONCE * _RANDOM_BYTES).hex()
            self._random = [
                pool[at : at + 2 * _RANDOM_BYTES] for at in range(0, len(pool), 2 * _RANDOM_BYTES)
            ]
        return f"req_{time.time_ns() // 1_000_000:012x}{self._random.pop()}"


class _Startable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def _started(opened: AsyncExitStack, part: _Startable) -> None:
    """Start it now, and stop it when all is closed."""
    await part.start()
    opened.push_async_callback(part.stop)


def _stop() -> None:
    """End this process as an operator would: it drains."""
    os.kill(os.getpid(), signal.SIGTERM)


def _redis_counters(config: Config, clock: SystemClock, observe: Observe) -> "RedisCounters | None":
    if config.redis is None:
        return None
    # Here, since coredis takes 13 MB and half a second: nobody without Redis should have to wait for it.
    from gateway.state.redis_client import RedisClient
    from gateway.state.redis_counters import RedisCounters

    client = RedisClient(
        config.redis,
        deadline_s=config.redis_timeout_s,
        observe=observe,
        is_linked=config.hot_redis == "thin",
    )
    return RedisCounters(client, clock)


class Resources:
    """All adapters of one process. Raises SecretUnusable when the secret can't be read or made."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = SystemClock()
        self.new_id = RequestIds()
        self.lifecycle = Lifecycle()
        self.metrics = Metrics(self._tenant_of)
        self.loop_lag = LoopLag(self.metrics.observe_lag)
        self.database = TimedDatabase(
            database_at(config.database_url),
            of_reads=self.metrics.store("database", "read"),
            of_writes=self.metrics.store("database", "write"),
        )
        self.hasher = Hasher()
        self._secret = load_secret(config)
        self._chain = Chain(self._secret)
        store = Keys(self.database)
        self.keys = VerifiedKeys(store, store.touch, self.hasher, self._secret, self.clock)
        self.running = Running(self.keys)
        known: dict[str, Profile] = {}
        self._profiles = Followed(
            Profiles(self.database).all, self.keys.watch, known, of="profiles of models"
        )
        none: frozenset[str] = frozenset()
        self._drained = Followed(
            Drains(self.database).all,
            self.keys.watch,
            none,
            of="drained backends",
            on_change=lambda _: self._route(),
        )
        timeouts = BackendTimeouts(
            connect_s=config.connect_timeout_s,
            first_byte_s=config.first_byte_timeout_s,
            chunk_gap_s=config.chunk_gap_timeout_s,
            answer_s=config.answer_timeout_s,
        )
        self._pool = Pool(config.backends, timeouts, is_thin=config.relay == "thin")
        self.catalogue = Discovery(self._pool.backends, self.clock, self._seen)
        bounds = QueueBounds(config.queue_length, config.queue_wait_s, config.model_turn_s)
        self.router = Router(self.catalogue, self.clock, self._pool.pairs, bounds)
        self.ledger = Ledger(self.database)
        self.tenants = Tenants(self.database)
        self.spool = Spool(
            config.data_dir / "spool",
            self.ledger,
            AuditLog(self.database, self._chain),
            Quarantine(self.database),
            max_bytes=config.spool_max_bytes,
        )
        self._fleet = FleetSpools(Replicas(self.database), self.spool.flush)
        self._redis = _redis_counters(config, self.clock, self.metrics.store("redis", "command"))
        self.counters: Counters = self._redis or LocalCounters(self.clock)
        self.allowances = RestoredCounters(self.counters, self.ledger, store, self._fleet, lease_s=LEASE_S)
        self.settler = Settler(self.counters, self.spool)
        chores: list[Chore] = [partial(settle_all, self.counters, self.spool.ends_of_the_dead)]
        chores.append(Uncounted(self.database, self._chain).count)
        prompts = Prompts(self.database)
        self.prompt_log = PromptLog(prompts, Sealer(self._secret), self.clock.elapsed)
        self._prompt_expiry = Rounds(prompts.expire, period_s=EXPIRE_PROMPTS_S)
        if self._redis is not None:  # what this process counts itself can't be behind
            chores.append(self.allowances.forget_what_is_behind)
        self.upkeep = Upkeep(self.counters, self.ledger, self.spool, *chores)
        retention = Retention(
            self.database,
            audit_days(config.database_url, self.database),
            self._chain,
            config.audit_retention_days,
        )
        self.retention = Rounds(retention.make_ahead, retention.remove_if_due, period_s=RETENTION_S)
        self.refusals = RecentRefusals()
        self.lore = PromptLore()
        self.tokenizers = Tokenizers(self.clock)
        self.sinks: tuple[Sink, ...] = (self.spool, RequestLog(), self.refusals)
        if config.ops_bind is not None:  # nobody could ask for them otherwise
            self.sinks += (self.metrics,)
        self._traces = traces_to(config.collector, self._kind_of)
        if self._traces is not None:
            self.sinks += (self._traces,)
        self._is_open = False

    @asynccontextmanager
    async def lifespan(self, _app: Any) -> AsyncIterator[None]:
        """Open while the app is served. Raises what the first adapter that does not open raises."""
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(
                serving(self.config.database_url, alone=self._redis is None, on_lost=_stop)
            )
            await opened.enter_async_context(self.database)
            await confirm_secret(Meta(self.database), self._secret)
            await self.hasher.start()
            opened.callback(self.hasher.close)
            await _started(opened, self.keys)
            await _started(opened, self.running)
            await _started(opened, self._profiles)
            await _started(opened, self._drained)
            # What a process that died left behind is in the ledger before anybody is counted by it.
            await self._open_spool()
            opened.push_async_callback(self._drain_spool)
            if self._redis is not None:
                await _started(opened, self._fleet)
                await opened.enter_async_context(self._redis.opened())
            await _started(opened, self._pool)
            await _started(opened, self.catalogue)
            await _started(opened, self.prompt_log)
            await _started(opened, self._prompt_expiry)
            await _started(opened, self.settler)
            await _started(opened, self.upkeep)
            await _started(opened, self.retention)
            if self._traces is not None:
                opened.push_async_callback(asyncio.to_thread, self._traces.close)
            await _started(opened, self.loop_lag)
            self._is_open = True
            opened.callback(self._note_closing)
            yield

    async def set_backends(self, configs: tuple[BackendConfig, ...]) -> None:
        """Take over the operator's new list, once each that is new on it was asked for its models.

        Nothing that runs is cut, and no model is missing meanwhile.
        """
        await self._pool.set(configs, self._adopt, self.catalogue.meet)

    def _adopt(self) -> None:
        self.catalogue.set_backends(self._pool.backends)
        self._route()

    def _route(self) -> None:
        """To the backends as they are set, save those that operators have taken out of service."""
        drained = self._drained.value
        self.router.set_backends(
            (backend, evolve(config, is_draining=config.is_draining or config.name in drained))
            for backend, config in self._pool.pairs
        )

    def _seen(self, backend: Backend, loaded: frozenset[str] | None) -> None:
        self.router.seen(backend, loaded)

    def profiles(self) -> Mapping[str, Profile]:
        """By canonical name, as of the latest change that is known."""
        return self._profiles.value

    def missing(self) -> list[str]:
        """What this process lacks to serve, for /readyz."""
        lacks = {
            "starting": not self._is_open,
            "draining": self.lifecycle.draining,
            "database": self.keys.watch.is_down or self.spool.is_cut_off,
            "redis": self._redis is not None and self._redis.is_down,
            "backend": not self.catalogue.is_ready,
            "spool": self.spool.is_full,
        }
        return [name for name, is_lacking in lacks.items() if is_lacking]

    def backends_lacking(self) -> dict[str, list[str]]:
        """What each backend lacks, for /readyz: see `ports.Readiness`."""
        stations = {station.name: station for station in self.router.states()}
        lacking: dict[str, list[str]] = {}
        for number, ((_, config), known) in enumerate(
            zip(self._pool.pairs, self.catalogue.states(), strict=True), 1
        ):
            station = stations[config.name]
            lacks = {
                "reach": not known.is_up,
                "models": known.is_up and not known.models,
                "trust": station.breaker is BreakerState.OPEN,
                "service": station.is_draining,
            }
            if any(lacks.values()):
                # Without a name of its own it goes by its address, which is nobody's business.
                name = config.name if config.is_named else f"backend-{number}"
                lacking[name] = [word for word, is_lacking in lacks.items() if is_lacking]
        return lacking

    def _note_closing(self) -> None:
        self._is_open = False

    def _kind_of(self, backend: str) -> str:
        return next((one.kind for one in self._pool.backends if one.name == backend), "")

    def _tenant_of(self, prefix: str) -> str | None:
        return self.keys.tenant_of(prefix)

    async def _open_spool(self) -> None:
        try:
            await self.spool.start()
        except SpoolUnusable as error:
            raise Refused(str(error)) from error

    async def _drain_spool(self) -> None:
        try:
            await self.spool.stop()
        except StoreUnavailable:
            logger.error("the database does not answer; the spool keeps the rest for the next start")
