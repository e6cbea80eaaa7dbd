"""Tenants, keys and rows to keep."""

import random
from typing import Any

from attrs import evolve

from gateway.accounting import Evidence, LedgerEntry
from gateway.model import AuditRow, Key, Tenant
from gateway.rules.audit_chain import Chain
from gateway.rules.keys import mac_of, new_token, prefix_of
from gateway.rules.mac import Mac

SECRET = b"0123456789abcdef0123456789abcdef"
CHAIN = Chain(SECRET)
ACME = Tenant(id="t1", name="acme", created_at=1000.5)


def token(seed: int = 1) -> str:
    return new_token(random.Random(seed).randrange)


def key(seed: int = 1, **changes: Any) -> Key:
    """The key that `token(seed)` is. Its Argon2 hash is none: storage does not look at it."""
    text = token(seed)
    made = Key(
        id=f"k{seed}",
        tenant=ACME,
        name=f"key {seed}",
        prefix=prefix_of(text),
        mac=mac_of(Mac(SECRET), text),
        argon2="$argon2id$",
        created_at=2000.25,
    )
    return evolve(made, **changes)


def audit_row(number: int = 1, **changes: Any) -> AuditRow:
    row = AuditRow(
        request_id=f"r{number}",
        received_at_us=1_700_000_000_000_000 + number,
        tenant_id="t1",
        key_id="k1",
        key_prefix="nz_abc12345",
        peer="192.0.2.7",
        client_request_id=None,
        user_agent="curl/8",
        method="POST",
        path="/api/chat",
        operation="chat",
        surface="ollama",
        model="llama3",
        backend="gpu1",
        stream=True,
        status=200,
        outcome="served",
        error_code=None,
        prompt_tokens=12,
        completion_tokens=34,
        tokens_estimated=False,
        first_token_ms=1.5,
        queue_ms=0.5,
        load_ms=None,
        prompt_ms=2.0,
        generation_ms=3.25,
        duration_ms=9.75,
        bytes_in=100,
        bytes_out=2000,
    )
    return evolve(row, **changes)


def intent(reservation_id: str = "r1", *, reserved: int = 100) -> LedgerEntry:
    return LedgerEntry(
        reservation_id=reservation_id,
        tenant_id="t1",
        key_id="k1",
        model="llama3:latest",
        admitted_at=1_700_000_000.25,
        day="2026-11-23",
        month="2026-11",
        reserved=reserved,
        tokens=reserved,
        prompt_tokens=0,
        completion_tokens=0,
        estimated=False,
        evidence=Evidence.INTENT,
    )


def settled(reservation_id: str = "r1", *, tokens: int = 30, reserved: int = 100) -> LedgerEntry:
    """The end of `intent(reservation_id)`."""
    return evolve(
        intent(reservation_id, reserved=reserved),
        tokens=tokens,
        prompt_tokens=10,
        completion_tokens=20,
        evidence=Evidence.SETTLED,
    )
