"""What the spool keeps, as JSON: an intent with what is known of its request, an end, an audit row.

Fields go by name, so that a gateway reads what an older one left behind.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from attrs import fields, frozen

from gateway.accounting import Evidence, LedgerEntry
from gateway.model import AuditRow

_ENTRY: Final = tuple(field.name for field in fields(LedgerEntry))
_ROW: Final = tuple(field.name for field in fields(AuditRow))
_MAX_INTEGER: Final = 2**63 - 1


class Unreadable(ValueError):
    """The payload is not a record of ours, or lacks what it must have."""


@frozen
class Intent:
    """A reservation, before anything is sent for it. `row` is what is audited if its process dies."""

    entry: LedgerEntry
    row: AuditRow | None = None


@frozen
class End:
    """What became of an intent."""

    entry: LedgerEntry


@frozen
class Audited:
    """A finished request."""

    row: AuditRow


Record = Intent | End | Audited


def encode(record: Record) -> bytes:
    """Never fails on what the types allow: what JSON or 64 bits can't hold is brought into range."""
    match record:
        case Intent(entry, row):
            return _json(["intent", vars(entry), None if row is None else vars(row)])
        case End(entry):
            return _json(["end", vars(entry)])
        case Audited(row):
            return _json(["audit", vars(row)])


def decode(payload: bytes) -> Record:
    """Raises Unreadable."""
    try:
        match orjson.loads(payload):
            case ["intent", dict(entry), None]:
                return Intent(_read_entry(entry))
            case ["intent", dict(entry), dict(row)]:
                return Intent(_read_entry(entry), _read_row(row))
            case ["end", dict(entry)]:
                return End(_read_entry(entry))
            case ["audit", dict(row)]:
                return Audited(_read_row(row))
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(repr(error)) from error
    raise Unreadable("not a record of this version")


def _read_entry(values: Mapping[str, Any]) -> LedgerEntry:
    # A gateway from before did not tell of the backend.
    known = {name: values.get(name, "") if name == "backend" else values[name] for name in _ENTRY}
    return LedgerEntry(**{**known, "evidence": Evidence(known["evidence"])})


def _read_row(values: Mapping[str, Any]) -> AuditRow:
    """A field that an older version did not have is what it is by default. TypeError where there is none."""
    return AuditRow(**{name: values[name] for name in _ROW if name in values})


def _json(parts: list[Any]) -> bytes:
    try:
        return orjson.dumps(parts)
    except TypeError:
        return orjson.dumps(_writable(parts))


def _writable(value: Any) -> Any:
    """What orjson takes: whole numbers of 64 bits, and text without lone surrogates."""
    match value:
        case list():
            return [_writable(one) for one in value]
        case dict():
            return {name: _writable(one) for name, one in value.items()}
        case str():
            return value.encode("utf-8", "replace").decode()
        case int():
            return max(-_MAX_INTEGER, min(value, _MAX_INTEGER))
    return value
