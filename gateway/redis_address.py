"""Where Redis is: REDIS_URL, read strictly, in any of the forms that it may have.

    redis://[user:password@]host[:port][/db]          one server
    redis+sentinel://[…@]host[:port],…/service[/db]   whoever leads by the word of these sentinels
    redis+cluster://[…@]host[:port],…                 a cluster that these are nodes of

`rediss` for `redis` in each: over TLS; then `?ca=/path/to/ca.pem` names the authority to trust instead of the
system's. The password is for the servers; `?sentinel_password=` is for sentinels that ask for one.
"""

import re
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import field, frozen

from gateway.several_hosts import split_url

_FORM: Final = re.compile(r"(?P<redis>rediss?)(\+(?P<kind>sentinel|cluster))?\Z")
_DEFAULT_PORTS: Final = {"single": 6379, "sentinel": 26379, "cluster": 6379}
_OPTIONS: Final = frozenset({"ca", "sentinel_password"})


class Kind(StrEnum):
    SINGLE = "single"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@frozen
class RedisAddress:
    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    service: str | None = None
    """The name that the sentinels know the servers by."""
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_password: str | None = field(default=None, repr=False)
    uses_tls: bool = False
    ca: str | None = None
    """A file of certificates to trust; None: those of the system."""

    def __str__(self) -> str:
        return ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)


def redis_address(url: str) -> RedisAddress:
    """Read a REDIS_URL. Raise ValueError for what is none: what it takes instead, without any password."""
    # What is raised here says nothing of what was given: a password is in it.
    parts = split_url(url)
    form = _FORM.match(parts.scheme)
    if form is None:
        raise ValueError("a URL that begins with redis://, rediss://, redis+sentinel:// or redis+cluster://")
    kind = Kind(form["kind"] or "single")
    credentials, _, hosts = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    service, db = _path(kind, parts.path)
    options = _options(parts.query)
    return RedisAddress(
        kind=kind,
        hosts=_hosts(kind, hosts),
        service=service,
        db=db,
        username=unquote(username) or None,
        password=unquote(password) or None,
        sentinel_password=options.get("sentinel_password"),
        uses_tls=form["redis"] == "rediss",
        ca=options.get("ca"),
    )


def _hosts(kind: Kind, text: str) -> tuple[tuple[str, int], ...]:
    hosts = tuple(_host(part, _DEFAULT_PORTS[kind]) for part in text.split(","))
    if kind is Kind.SINGLE and len(hosts) > 1:
        raise ValueError(
            "one host; several need redis+sentinel://host,host/service or redis+cluster://host,host"
        )
    return hosts


def _host(text: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host:
        raise ValueError("hosts that can be read, as host:port")
    return host, default_port if port is None else port


def _path(kind: Kind, path: str) -> tuple[str | None, int]:
    """The service and the number of the database."""
    names = [unquote(part) for part in path.split("/") if part]
    service = names.pop(0) if kind is Kind.SENTINEL and names else None
    if kind is Kind.SENTINEL and service is None:
        raise ValueError("the sentinels' name of the service as its path: redis+sentinel://host:port/name")
    db = names.pop(0) if names and kind is not Kind.CLUSTER else "0"
    if names or not db.isdecimal():
        raise ValueError("no path but the number of a database")
    return service, int(db)


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query))
    if unknown := sorted(options.keys() - _OPTIONS):
        raise ValueError(f"the options ca and sentinel_password only, not '{unknown[0]}'")
    return options
