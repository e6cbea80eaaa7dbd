"""Settings: `parse` is pure and reports all mistakes at once; `load` reads environment and .env file.

Environment over .env over defaults. Every setting is one row of `SETTINGS`, which README's table and
.env.example are tested against. Values of secrets are never printed.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from attrs import field, frozen
from dotenv import dotenv_values

from gateway.model import Network
from gateway.postgres_address import is_postgres, postgres_address
from gateway.redis_address import RedisAddress, redis_address
from gateway.secret_files import with_files_read

# A century.
MAX_RETENTION_DAYS: Final = 36_525

KIB: Final = 1024
MIB: Final = 1024 * KIB


class ConfigError(Exception):
    """All mistakes found in the settings, one sentence each."""

    def __init__(self, mistakes: list[str]) -> None:
        super().__init__("\n".join(mistakes))
        self.mistakes = mistakes


@frozen
class Address:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class BackendConfig:
    """One entry of OLLAMA_BACKENDS. `url` has no path and no trailing slash."""

    name: str
    url: str
    kind: str = "ollama"
    credential: str | None = field(default=None, repr=False)
    """Sent as a Bearer token; read from the variable that `key-env` names."""
    slots: int | None = None
    """So many requests at the same time from this process, the others queue; None: no queue."""
    weight: int = 1
    """How much of the work it gets, beside other backends that have the same model loaded."""
    is_draining: bool = False
    """It gets no new requests; those that run finish."""

    @property
    def is_named(self) -> bool:
        """Whether the operator gave the name; else it is the address."""
        return self.name != urlsplit(self.url).netloc


@frozen
class Config:
    """The gateway's settings, typed. Durations in seconds, sizes in bytes."""

    database_url: str = field(repr=False)
    admin_database_url: str = field(repr=False)
    """For commands: the same database, by a role that may change and remove what the serving one may not."""
    redis: RedisAddress | None
    """Where limits and budgets are counted for all replicas; None: in this process."""
    redis_timeout_s: float
    hot_redis: str
    """What runs each request's scripts: thin or coredis."""
    relay: str
    """What callers' requests go to backends by: thin or aiohttp."""
    backends: tuple[BackendConfig, ...]
    bind: Address
    server: str
    """What speaks HTTP with callers: http1, which is ours, or hypercorn."""
    ops_bind: Address | None
    """Where metrics and probes are for operators; None: nowhere."""
    secret: str | None = field(repr=False)
    data_dir: Path
    spool_max_bytes: int
    max_body_bytes: int
    max_bodies_bytes: int
    body_grace_s: float
    body_min_bytes_per_s: int
    body_deadline_s: float
    connect_timeout_s: float
    first_byte_timeout_s: float
    chunk_gap_timeout_s: float
    answer_timeout_s: float
    queue_length: int
    queue_wait_s: float
    model_turn_s: float
    write_stall_s: float
    drain_s: float
    max_keep_alive_s: float
    default_keep_alive_s: float | None
    max_num_ctx: int
    max_output_tokens: int
    default_output_tokens: int
    trusted_proxies: tuple[Network, ...]
    allowed_hosts: frozenset[str]
    audit_retention_days: int | None
    """For so long audit rows are kept, where a tenant has no time of its own; None: for good."""
    collector: str | None
    """Where traces go; None: nowhere."""
    log_level: str


@frozen
class Setting:
    """One environment variable: how it is read, what it is without it, and what it is for."""

    name: str
    read: Callable[[str], Any]
    default: str
    meaning: str
    secret: bool = False


# ── readers: text → value, ValueError with what was expected ─────────────────────────────


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("an address and a port, such as 127.0.0.1:8080")
    return Address(host, int(port))


def _ops_address(text: str) -> Address | None:
    return None if text.lower() == "off" else _address(text)


def _collector(text: str) -> str | None:
    if text and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", text):
        raise ValueError("http://host:port or https://host:port, without credentials")
    return text.rstrip("/") or None


def _database(text: str) -> str:
    if is_postgres(text):
        postgres_address(text)
    elif not re.fullmatch(r"sqlite:///[^?]+", text):
        raise ValueError(
            "a SQLite URL without a query, such as sqlite:///data/gateway.db, or one of Postgres, such as "
            "postgresql://user:password@host/database"
        )
    return text


def _days(text: str) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MAX_RETENTION_DAYS:
        raise ValueError(f"a whole number of days from 1 to {MAX_RETENTION_DAYS}, or nothing")
    return int(text)


def _redis(text: str) -> RedisAddress | None:
    return redis_address(text) if text else None


def _choice(*words: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return read


def _positive(unit: type[int] | type[float], expected: str) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            number = unit(text)
        except ValueError:
            number = unit(0)
        if not 0 < number < float("inf"):
            raise ValueError(expected)
        return number

    return read


_seconds = _positive(float, "a number of seconds above 0")
_bytes = _positive(int, "a whole number of bytes above 0")

# Four of its files. A tenth is kept for the ends of what runs, about 1 KB each: those of 1500 requests.
MIN_SPOOL_BYTES: Final = 16 * MIB


def _spool_bytes(text: str) -> int:
    if not text.isdecimal() or int(text) < MIN_SPOOL_BYTES:
        raise ValueError(f"a whole number of bytes, {MIN_SPOOL_BYTES} or more")
    return int(text)


_requests = _positive(int, "a whole number of requests above 0")
_tokens = _positive(int, "a whole number of tokens above 0")


def _networks(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part) for part in _items(text))
    except ValueError:
        raise ValueError("a comma list of addresses or networks, such as 10.0.0.0/8") from None


def _hosts(text: str) -> frozenset[str]:
    return frozenset(part.lower() for part in _items(text))


# HMAC-SHA256 takes any length; below its 32 bytes of output a secret could be searched for.
MIN_SECRET_CHARACTERS: Final = 32
_SAMPLES = ("change", "secret", "example", "sample", "password", "your")


def _secret(text: str) -> str | None:
    if not text:
        return None
    if len(text) < MIN_SECRET_CHARACTERS or len(set(text)) < 8 or text.lower().startswith(_SAMPLES):
        raise ValueError(
            f"at least {MIN_SECRET_CHARACTERS} random characters, such as `openssl rand -hex 32` prints"
        )
    return text


def _level(text: str) -> str:
    if text.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("DEBUG, INFO, WARNING or ERROR")
    return text.upper()


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


SETTINGS: Final = (
    Setting(
        "DATABASE_URL",
        _database,
        "sqlite:///data/gateway.db",
        "where tenants, keys, the ledger and the audit log are kept: `sqlite:///PATH`, or for several "
        "machines `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`",
        secret=True,
    ),
    Setting(
        "DATABASE_ADMIN_URL",
        lambda text: _database(text) if text else "",
        "",
        "the same Postgres by another role, for commands alone: one that may migrate, and remove audit rows, "
        "where that of DATABASE_URL may not; empty: DATABASE_URL",
        secret=True,
    ),
    Setting(
        "REDIS_URL",
        _redis,
        "",
        "where gateways count limits and budgets together: `redis://`, `rediss://`, `redis+sentinel://HOST,"
        "HOST/SERVICE` or `redis+cluster://HOST,HOST`; empty: one process counts alone",
        secret=True,
    ),
    Setting(
        "GATEWAY_REDIS_TIMEOUT_S",
        _seconds,
        "0.1",
        "how long a request waits for Redis; beyond: 503, at once for all after three in a row",
    ),
    Setting(
        "GATEWAY_HOT_REDIS",
        _choice("thin", "coredis"),
        "thin",
        "by what each request asks a single Redis server: `thin`, over one connection of our own, all of a "
        "moment in one write; or `coredis`, which sentinels, clusters and commands are always asked by",
    ),
    Setting(
        "OLLAMA_BACKENDS",
        str,
        "http://127.0.0.1:11434",
        "comma list of `[name=]URL[;kind=KIND][;slots=N][;weight=N][;key-env=VAR][;drain=yes]`, "
        "KIND ollama or openai; SIGHUP reads it again",
    ),
    Setting(
        "GATEWAY_RELAY",
        _choice("thin", "aiohttp"),
        "thin",
        "by what callers' requests go to backends: `thin`, over connections of our own; or `aiohttp`, by "
        "which backends are always asked for their models",
    ),
    Setting("GATEWAY_BIND", _address, "127.0.0.1:8080", "the address that callers reach"),
    Setting(
        "GATEWAY_SERVER",
        _choice("http1", "hypercorn"),
        "http1",
        "what speaks HTTP with callers: `http1`, connections of our own; or `hypercorn`, which costs more "
        "and leaves open what docs/OPERATIONS.md says",
    ),
    Setting(
        "GATEWAY_OPS_BIND",
        _ops_address,
        "127.0.0.1:9090",
        "where `/metrics`, `/healthz` and `/readyz` are for operators: an address that callers do not reach; "
        "on the loopback it is asked for as localhost, 127.0.0.1 or [::1] only; `off`: nowhere",
    ),
    Setting(
        "GATEWAY_DATA_DIR",
        Path,
        "data",
        "where the generated secret, the spool, the demo model and locks are kept",
    ),
    Setting(
        "GATEWAY_SPOOL_MAX_BYTES",
        _spool_bytes,
        str(256 * MIB),
        "how much of the disk the spool of each process takes, a tenth of it from the start: about 2.2 KB "
        f"for a request that the database does not have yet; beyond: 503. At least {MIN_SPOOL_BYTES}",
    ),
    Setting(
        "GATEWAY_SECRET",
        _secret,
        "",
        "what stored keys are hashed under, the same for all gateways of a fleet; "
        "empty, where there is neither REDIS_URL nor Postgres: made once and kept in GATEWAY_DATA_DIR/secret",
        secret=True,
    ),
    Setting("GATEWAY_MAX_BODY_BYTES", _bytes, str(20 * MIB), "the largest request body"),
    Setting(
        "GATEWAY_MAX_BODIES_BYTES",
        _bytes,
        str(256 * MIB),
        "all request bodies in memory together; beyond: 503",
    ),
    Setting("GATEWAY_BODY_GRACE_S", _seconds, "5", "a body may be slow for so long"),
    Setting(
        "GATEWAY_BODY_MIN_BYTES_PER_S", _bytes, str(KIB), "then it must have come at this rate on average"
    ),
    Setting("GATEWAY_BODY_DEADLINE_S", _seconds, "60", "and be complete by then; else 408"),
    Setting("GATEWAY_CONNECT_TIMEOUT_S", _seconds, "3", "connecting to a backend"),
    Setting(
        "GATEWAY_FIRST_BYTE_TIMEOUT_S", _seconds, "300", "a backend's first byte: loading a model takes time"
    ),
    Setting("GATEWAY_CHUNK_GAP_TIMEOUT_S", _seconds, "90", "silence between two pieces of an answer"),
    Setting("GATEWAY_ANSWER_TIMEOUT_S", _seconds, "3600", "a whole answer that Ollama does not stream"),
    Setting(
        "GATEWAY_QUEUE_LENGTH",
        _requests,
        "256",
        "how many requests may wait for the slots of each backend, in each process; beyond: 503",
    ),
    Setting(
        "GATEWAY_QUEUE_WAIT_S",
        _seconds,
        "30",
        "how long a request may wait for a slot; one that would have to wait longer is refused at once, "
        "with 503",
    ),
    Setting(
        "GATEWAY_MODEL_TURN_S",
        _seconds,
        "10",
        "how long a backend with slots keeps a model for those who wait for it, while others wait for "
        "another "
        "one; none is loaded twice within this time",
    ),
    Setting("GATEWAY_WRITE_STALL_S", _seconds, "30", "a client that reads nothing for so long is cut"),
    Setting("GATEWAY_DRAIN_S", _seconds, "120", "how long SIGTERM waits for running requests"),
    Setting(
        "GATEWAY_MAX_KEEP_ALIVE_S", _seconds, "1800", "how long a caller may keep a model loaded, at most"
    ),
    Setting(
        "GATEWAY_DEFAULT_KEEP_ALIVE_S",
        lambda text: _seconds(text) if text else None,
        "",
        "how long a model stays loaded where the caller does not say; empty: as the backend is set",
    ),
    Setting(
        "GATEWAY_MAX_NUM_CTX", _tokens, "32768", "how many tokens of context a caller may load a model with"
    ),
    Setting("GATEWAY_MAX_OUTPUT_TOKENS", _tokens, "32768", "the longest output of one request"),
    Setting(
        "GATEWAY_DEFAULT_OUTPUT_TOKENS",
        _tokens,
        "4096",
        "the output reserved where tokens are limited and the caller does not say how much it wants",
    ),
    Setting(
        "GATEWAY_TRUSTED_PROXIES",
        _networks,
        "",
        "comma list of networks whose X-Forwarded-For is believed; empty: nobody's",
    ),
    Setting("GATEWAY_ALLOWED_HOSTS", _hosts, "", "comma list of Host names that are served; empty: any"),
    Setting(
        "GATEWAY_AUDIT_RETENTION_DAYS",
        _days,
        "",
        "for how many days audit rows are kept, where `set-retention` says nothing else of their tenant; "
        "empty: for good",
    ),
    Setting(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        _collector,
        "",
        "an OpenTelemetry collector that takes OTLP over HTTP, such as `http://127.0.0.1:4318`, with the "
        "extra `[otel]`; empty: no traces",
        secret=True,  # somebody may have put a password into it
    ),
    Setting("GATEWAY_LOG_LEVEL", _level, "INFO", "DEBUG, INFO, WARNING or ERROR"),
)
_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


_FLEET_WITHOUT_ONE: Final = (
    "GATEWAY_SECRET is not set: gateways that share a REDIS_URL or a Postgres need the same one, or each "
    "would refuse the keys that were made by another; `openssl rand -hex 32` prints one."
)


_OPS_IN_PUBLIC: Final = (
    "GATEWAY_OPS_BIND is the same as GATEWAY_BIND: metrics are not for callers, and need an address of "
    "their own."
)


# Names that compose.yaml reads: in a .env that serves both, they are no typos.
_OF_COMPOSE: Final = frozenset({"GATEWAY_DOMAIN"})


_ADMIN_OF_NO_POSTGRES: Final = (
    "DATABASE_ADMIN_URL is for a second role of the Postgres that DATABASE_URL names; SQLite has no roles."
)


def parse(values: Mapping[str, str]) -> Config:
    """Turn environment-like text into a Config. Raises ConfigError with every mistake at once."""
    known = _BY_NAME.keys() | _OF_COMPOSE
    mistakes = [_unknown(name) for name in values if name.startswith("GATEWAY_") and name not in known]
    read: dict[str, Any] = {}
    for setting in SETTINGS:
        text = values.get(setting.name, "").strip() or setting.default
        try:
            read[setting.name.removeprefix("GATEWAY_").lower()] = setting.read(text)
        except ValueError as error:
            shown = "is" if setting.secret else f"is {text!r}, but"
            mistakes.append(f"{setting.name} {shown} not usable: it takes {error}.")
    read["redis"] = read.pop("redis_url", None)
    admin = read.pop("database_admin_url", "")
    if admin and not (is_postgres(admin) and is_postgres(read.get("database_url", ""))):
        mistakes.append(_ADMIN_OF_NO_POSTGRES)
    read["admin_database_url"] = admin or read.get("database_url", "")
    read["collector"] = read.pop("otel_exporter_otlp_endpoint", None)
    is_shared = read["redis"] is not None or is_postgres(read.get("database_url", ""))
    if is_shared and not read.get("secret"):
        mistakes.append(_FLEET_WITHOUT_ONE)
    bind = read.get("bind")
    if bind is not None and bind.port and bind == read.get("ops_bind"):
        mistakes.append(_OPS_IN_PUBLIC)
    read["backends"] = tuple(_backends(read.pop("ollama_backends", ""), values, mistakes))
    if mistakes:
        raise ConfigError(mistakes)
    return Config(**read)


def load(env_file: Path = Path(".env"), environment: Mapping[str, str] | None = None) -> Config:
    """Read the environment over `env_file`, which need not exist. Raises ConfigError."""
    return parse(values(env_file, environment))


def values(env_file: Path = Path(".env"), environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is set, as text: the environment over `env_file`, which need not exist.

    Secrets may come from files that `NAME_FILE` names, in either place. Raises ConfigError when one can't be
    read, or when a place has both.
    """
    from_file = {name: value or "" for name, value in dotenv_values(env_file, interpolate=False).items()}
    around = os.environ if environment is None else environment
    backends = {**from_file, **around}.get("OLLAMA_BACKENDS", "")
    secrets = {setting.name for setting in SETTINGS if setting.secret} | set(_KEY_VARIABLE.findall(backends))
    below, mistakes = with_files_read(from_file, sorted(secrets))
    above, more = with_files_read(around, sorted(secrets))
    if mistakes + more:
        raise ConfigError(mistakes + more)
    return {**below, **above}


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, _BY_NAME, n=1)
    return f"unknown setting '{name}'" + (
        f"; did you mean {near[0]}?" if near else "; see README for the settings."
    )


_KEY_VARIABLE: Final = re.compile(r";\s*key-env=\s*([^\s;,]+)")
_BACKEND_OPTIONS: Final = ("kind", "slots", "weight", "key-env", "drain")
_KINDS: Final = ("ollama", "openai")
# Far beyond what one server answers at once; a typo of more digits is none.
_MAX_SLOTS: Final = 100_000
_MAX_WEIGHT: Final = 1_000


def _backends(text: str, values: Mapping[str, str], mistakes: list[str]) -> list[BackendConfig]:
    backends: list[BackendConfig] = []
    for entry in _items(text):
        try:
            backend = _backend(entry, values)
            if any(backend.name == other.name for other in backends):
                raise ValueError(f"the name '{backend.name}' is used twice")
            backends.append(backend)
        except ValueError as error:
            mistakes.append(f"OLLAMA_BACKENDS entry {_without_userinfo(entry)!r}: {error}.")
    return backends


def _backend(entry: str, values: Mapping[str, str]) -> BackendConfig:
    target, *options = entry.split(";")
    name, _, url = target.partition("=") if re.match(r"[A-Za-z0-9_.-]+=", target) else ("", "", target)
    parts = urlsplit(url.strip().rstrip("/"))
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path
        or parts.query
        or parts.username
    ):
        raise ValueError("expected http://host:port or https://host:port, without path or credentials")
    chosen = _options(options)
    return BackendConfig(
        name=name or parts.netloc,
        url=f"{parts.scheme}://{parts.netloc}",
        kind=_one_of(_KINDS, chosen, "kind", "ollama"),
        credential=_credential(chosen.get("key-env"), values),
        slots=_count(chosen, "slots", _MAX_SLOTS),
        weight=_count(chosen, "weight", _MAX_WEIGHT) or 1,
        is_draining=_one_of(("yes", "no"), chosen, "drain", "no") == "yes",
    )


def _options(texts: list[str]) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for text in texts:
        name, _, value = text.strip().partition("=")
        if name not in _BACKEND_OPTIONS:
            raise ValueError(f"unknown option '{name}'; it takes {', '.join(_BACKEND_OPTIONS)}")
        if name in chosen:
            raise ValueError(f"{name} is given twice")
        chosen[name] = value.strip()
    return chosen


def _one_of(words: tuple[str, ...], chosen: Mapping[str, str], name: str, default: str) -> str:
    value = chosen.get(name, default)
    if value not in words:
        raise ValueError(f"{name} is '{value}'; it takes {' or '.join(words)}")
    return value


def _count(chosen: Mapping[str, str], name: str, most: int) -> int | None:
    value = chosen.get(name)
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal() and 1 <= int(value) <= most):
        raise ValueError(f"{name} is '{value}'; it takes a whole number from 1 to {most}")
    return int(value)


def _credential(variable: str | None, values: Mapping[str, str]) -> str | None:
    if variable is None:
        return None
    if not values.get(variable):
        raise ValueError(f"key-env names {variable}, which is not set")
    return values[variable]


def _without_userinfo(entry: str) -> str:
    return re.sub(r"//[^/@]*@", "//…@", entry)
