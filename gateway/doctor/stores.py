"""The database, its secret and its clock; Redis, what it would lose, and its clock."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.config import Config
from gateway.doctor.findings import Finding, failed, ok, skipped, warning
from gateway.errors import GatewayError
from gateway.postgres_address import is_postgres
from gateway.redis_address import Kind, RedisAddress
from gateway.state.secret import FILE_NAME, confirm_secret, load_secret
from gateway.storage.database import Database
from gateway.storage.engines import audit_days, database_at
from gateway.storage.meta import Meta
from gateway.storage.migrations import pending
from gateway.storage.prompts import Prompts
from gateway.storage.refusals import Refused
from gateway.storage.replicas import Replicas

if TYPE_CHECKING:
    from gateway.state.redis_client import RedisClient

# Keys expire and days begin by these clocks. Machines that keep time together differ by milliseconds.
_SKEW_S: Final = 1.0
_BAD_SKEW_S: Final = 30.0
_OLDEST_REDIS: Final = 7
_DEADLINE_S: Final = 2.0
# SPEC 9: then they are gone.
_PROMPTS_LATE_S: Final = 600.0
_SLOW_S: Final = 0.5


async def examine_database(config: Config) -> AsyncIterator[Finding]:
    try:
        waiting = pending(config.database_url)
        async with database_at(config.database_url, connections=1) as database:
            yield await _database(database)
            yield _migrations(waiting)
            yield await _secret(config, database) if not waiting else _after_migrations("secret")
            yield await _clock(database)
            yield await _audit(config, database) if not waiting else _after_migrations("audit rights")
            yield await _prompts(database) if not waiting else _after_migrations("prompts")
    except (Refused, GatewayError) as error:
        yield failed("database", str(error), "See DATABASE_URL, and whether the server runs.")


async def examine_redis(config: Config) -> AsyncIterator[Finding]:
    if config.redis is None:
        yield skipped("redis", "REDIS_URL is not set: one gateway counts limits and budgets alone.")
        return
    from gateway.state.redis_client import RedisClient  # here, as in resources

    client = RedisClient(config.redis, deadline_s=_DEADLINE_S, opening_s=_DEADLINE_S)
    try:
        await client.open()
    except (Refused, GatewayError) as error:
        yield failed(
            "redis", _sentence(error, config.redis), "See REDIS_URL, and the server's maxmemory-policy."
        )
        return
    try:
        async for finding in _redis(client, config):
            yield finding
    except GatewayError as error:
        yield failed("redis", _sentence(error, config.redis), "See REDIS_URL, and whether it is overloaded.")
    finally:
        await client.close()


async def _database(database: Database) -> Finding:
    began = time.perf_counter()
    async with database.session() as session:
        await session.fetch_val("SELECT 1")
    took_s = time.perf_counter() - began
    if took_s > _SLOW_S:
        return warning(
            "database", f"The database took {took_s:.1f} s to answer.", "See its load and the way to it."
        )
    return ok("database", f"The database answers in {took_s * 1e3:.0f} ms.")


def _migrations(waiting: list[str]) -> Finding:
    if waiting:
        return failed(
            "migrations",
            f"The database lacks what {', '.join(waiting)} would bring.",
            "neuronetz-gateway migrate",
        )
    return ok("migrations", "The database has all that this version needs.")


def _after_migrations(check: str) -> Finding:
    return skipped(check, "To be seen once the database is up to date.")


async def _secret(config: Config, database: Database) -> Finding:
    if config.secret is None and not (config.data_dir / FILE_NAME).exists():
        return ok("secret", "There is none yet; the first start makes one and keeps it.")
    try:
        await confirm_secret(Meta(database), load_secret(config))
    except Refused as error:
        return failed("secret", str(error), "Bring the right secret back: a key can't be had from its hash.")
    where = "GATEWAY_SECRET" if config.secret is not None else str(config.data_dir / FILE_NAME)
    return ok("secret", f"{where} is the one that the stored keys were made under.")


async def _prompts(database: Database) -> Finding:
    prompts = Prompts(database)
    if overdue := await prompts.overdue(_PROMPTS_LATE_S):
        return failed(
            "prompts",
            f"{overdue:,} prompts should have been deleted more than {_PROMPTS_LATE_S / 60:.0f} minutes ago.",
            "Start a gateway on this database, which deletes them; or `neuronetz-gateway purge-prompts`.",
        )
    logging = await prompts.logging()
    if not logging:
        return ok("prompts", "No key's prompts are kept.")
    told = "1 key are" if logging == 1 else f"{logging:,} keys are"
    return ok("prompts", f"Prompts of {told} kept, encrypted, each until its time is over.")


async def _clock(database: Database) -> Finding:
    began = time.time()
    theirs = await Replicas(database).now()
    return _skew("clock", "the database", theirs - (began + time.time()) / 2)


async def _audit(config: Config, database: Database) -> Finding:
    """Of the role that serves: commands may have another one."""
    if not is_postgres(config.database_url):
        return ok(
            "audit rights", "SQLite has no roles: verify-audit tells what was changed in the audit log."
        )
    if await audit_days(config.database_url, database).may_change():
        return warning(
            "audit rights",
            "The database role that serves could change or delete audit rows.",
            "Serve as a role of its own: neuronetz-gateway migrate --grant-to ROLE, see docs/OPERATIONS.md.",
        )
    return ok("audit rights", "The database role that serves adds to the audit log, and can't change it.")


def _skew(check: str, whose: str, skew_s: float) -> Finding:
    told = f"The clock here and that of {whose} differ by {abs(skew_s):.1f} s"
    if abs(skew_s) >= _BAD_SKEW_S:
        return failed(check, f"{told}.", "Let both machines keep time (NTP): budgets turn by these clocks.")
    if abs(skew_s) >= _SKEW_S:
        return warning(check, f"{told}.", "Let both machines keep time (NTP).")
    return ok(check, f"{told}.")


def _sentence(error: Exception, address: RedisAddress) -> str:
    return str(error) if isinstance(error, Refused) else f"Redis does not answer at {address}."


async def _redis(client: "RedisClient", config: Config) -> AsyncIterator[Finding]:
    if client.address.kind is Kind.CLUSTER:
        # Its nodes are looked at one by one when it is opened, for their policy; the rest is each one's own.
        yield ok("redis", "The cluster answers, and none of its nodes would drop counters.")
        return
    told: Mapping[str, Any] = await client.run(lambda one: one.info())
    for finding in _of_info(told):
        yield finding
    began = time.time()
    now = await client.run(lambda one: one.time())
    yield _skew("redis clock", "Redis", now.timestamp() - (began + time.time()) / 2)
    took_s = time.time() - began
    if took_s > config.redis_timeout_s:
        yield warning(
            "redis latency",
            f"Redis took {took_s * 1e3:.0f} ms; a gateway waits {config.redis_timeout_s * 1e3:.0f}.",
            "See its load and the way to it, or raise GATEWAY_REDIS_TIMEOUT_S.",
        )


def _of_info(told: Mapping[str, Any]) -> Iterator[Finding]:
    name, version = _version(told)
    if int(version.partition(".")[0] or 0) < _OLDEST_REDIS:
        yield failed("redis", f"{name} {version} is too old.", f"Redis {_OLDEST_REDIS} or later, or Valkey.")
    else:
        yield ok("redis", f"{name} {version} answers, and would drop no counters.")
    if int(told.get("aof_enabled", 0)):
        yield ok("redis persistence", "Redis keeps its counters over a restart.")
    else:
        yield ok(
            "redis persistence", "Redis may forget at a restart: the ledger tells it again, within seconds."
        )


def _version(told: Mapping[str, Any]) -> tuple[str, str]:
    if "valkey_version" in told:
        return "Valkey", str(told["valkey_version"])
    return "Redis", str(told.get("redis_version", ""))
