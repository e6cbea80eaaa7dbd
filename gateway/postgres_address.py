"""Where Postgres is: DATABASE_URL as postgresql://, read strictly.

    postgresql://user[:password@]host[:port][,host[:port]…]/database[?option=value&…]

User, password, host and database may be percent-encoded; a host that begins with %2F is the folder of a Unix
socket. Of several hosts the one that takes writes is used. The options mean what libpq means by them, but
nothing is looked for in a home directory; `pgbouncer=true` is for a pooler between us and the server.
"""

import re
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote

from attrs import field, frozen

from gateway.several_hosts import split_url

_SCHEMES: Final = ("postgresql", "postgres")
_DEFAULT_PORT: Final = 5432
_OPTIONS: Final = ("sslmode", "sslrootcert", "application_name", "pgbouncer")
_EXAMPLE: Final = "postgresql://user:password@host:5432/database"
# A host, or an IPv6 address in brackets, with or without a port.
_HOST: Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(:(?P<port>\d{1,5}))?")
SYSTEM: Final = "system"


class SslMode(StrEnum):
    DISABLE = "disable"
    PREFER = "prefer"
    """TLS where the server has it; nobody is kept from reading along."""
    REQUIRE = "require"
    """TLS; who is at the other end is checked only where there is an `sslrootcert`."""
    VERIFY_CA = "verify-ca"
    VERIFY_FULL = "verify-full"

    @property
    def verifies(self) -> bool:
        return self in (SslMode.VERIFY_CA, SslMode.VERIFY_FULL)


@frozen
class PostgresAddress:
    hosts: tuple[tuple[str, int], ...]
    database: str
    user: str
    password: str | None = field(default=None, repr=False)
    sslmode: SslMode = SslMode.PREFER
    sslrootcert: str | None = None
    """A file of certificates to trust, or SYSTEM for those that the system trusts."""
    application_name: str = "neuronetz-gateway"
    is_pooled: bool = False
    """A pooler such as pgbouncer gives each transaction whichever session of the server is free."""

    def __str__(self) -> str:
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"{hosts}/{self.database}"


def is_postgres(database_url: str) -> bool:
    return database_url.partition(":")[0] in _SCHEMES


def postgres_address(url: str) -> PostgresAddress:
    """Read such a URL. Raises ValueError for what is none: what it takes instead, without any password."""
    # What is raised here says nothing of what was given: a password is in it.
    parts = split_url(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    database = parts.path.removeprefix("/")
    is_whole = parts.scheme in _SCHEMES and at and user and database
    if not is_whole or "/" in database or parts.fragment:
        raise ValueError(
            f"a user, a host and a database, such as {_EXAMPLE}; '/', '@', '#' and '?' in them are written "
            "%2F, %40, %23 and %3F"
        )
    options = _options(parts.query)
    sslmode, sslrootcert = _tls(options)
    return PostgresAddress(
        hosts=tuple(_host(host) for host in hosts.split(",")),
        database=_text(database),
        user=_text(user),
        password=_text(password) or None,
        sslmode=sslmode,
        sslrootcert=sslrootcert,
        application_name=options.get("application_name") or "neuronetz-gateway",
        is_pooled=_is_true(options.get("pgbouncer", "false")),
    )


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    port = int(found["port"] or _DEFAULT_PORT) if found else 0
    if found is None or not 0 < port < 65536:
        raise ValueError("hosts that can be read, as host:port or [IPv6 address]:port")
    return _text(found["host"].strip("[]")), port


def _text(encoded: str) -> str:
    try:
        text = unquote(encoded, errors="strict")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError("percent-encoded UTF-8 without NUL")
    return text


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    options = dict(pairs)
    if unknown := sorted(options.keys() - set(_OPTIONS)):
        # What is no name may be the rest of a password with a '?' in it.
        named = f", not '{unknown[0]}'" if re.fullmatch(r"[A-Za-z_]{1,40}", unknown[0]) else ""
        raise ValueError(f"the options {', '.join(_OPTIONS)} only{named}")
    if len(options) < len(pairs):
        raise ValueError("each option once")
    return options


def _tls(options: dict[str, str]) -> tuple[SslMode, str | None]:
    """What is encrypted, and whose word is taken for it: no combination that promises more than it keeps."""
    try:
        mode = SslMode(options.get("sslmode", SslMode.PREFER))
    except ValueError:
        raise ValueError(f"one of {', '.join(SslMode)} as sslmode") from None
    certificates = options.get("sslrootcert") or None
    if mode.verifies and certificates is None:
        raise ValueError(
            f"sslmode={mode} with sslrootcert=FILE, the certificates to trust, or sslrootcert={SYSTEM}"
        )
    if certificates is not None and mode in (SslMode.DISABLE, SslMode.PREFER):
        raise ValueError("sslrootcert with sslmode=verify-full, verify-ca or require only")
    if certificates == SYSTEM and mode is not SslMode.VERIFY_FULL:
        raise ValueError(
            f"sslrootcert={SYSTEM} with sslmode=verify-full only: anybody can have a certificate of some name"
        )
    return mode, certificates


def _is_true(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false as pgbouncer")
    return text == "true"
