"""What the audit log keeps of a request, and what it never keeps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BackendFailed, BackendTimeout, Draining, GatewayError, Unauthenticated
from gateway.model import AuditRow, Outcome, Timings, Usage
from gateway.rules.audit import MAX_TEXT, cleaned, outcome_of, row_of, row_of_refused
from tests.asgi import PRINCIPAL, exchange

KEY = "nz_abc12345" + "S" * 34 + "123456"


def test_a_whole_row():
    """Every field that is kept; there is no other."""
    finished = exchange(
        principal=PRINCIPAL,
        client_request_id="theirs",
        user_agent="curl/8",
        model="m:latest",
        backend="gpu",
        stream=True,
        status=200,
        usage=Usage(7, 5),
        timings=Timings(load_ns=1_000_000, prompt_ns=2_500_000, generation_ns=3_000_000),
        first_token=100.5,
        queued_s=0.25,
        bytes_in=10,
        bytes_out=20,
    )

    assert row_of(finished, ended=101.0) == AuditRow(
        request_id="r1",
        received_at_us=1_800_000_000_000_000,
        tenant_id="t1",
        key_id="k1",
        key_prefix="nz_abc12345",
        peer="192.0.2.1",
        client_request_id="theirs",
        user_agent="curl/8",
        method="POST",
        path="/api/chat",
        operation="chat",
        surface="ollama",
        model="m:latest",
        backend="gpu",
        stream=True,
        status=200,
        outcome="served",
        error_code=None,
        prompt_tokens=7,
        completion_tokens=5,
        tokens_estimated=False,
        first_token_ms=500.0,
        queue_ms=250.0,
        load_ms=1.0,
        prompt_ms=2.5,
        generation_ms=3.0,
        duration_ms=1000.0,
        bytes_in=10,
        bytes_out=20,
    )


def test_a_refused_request_has_no_tenant():
    row = row_of(exchange(status=401, error=Unauthenticated()), ended=100.0)

    assert (row.tenant_id, row.key_prefix, row.outcome, row.error_code) == (
        None,
        None,
        "refused",
        "invalid_api_key",
    )


def refused(target: bytes, method: str = "POST") -> AuditRow:
    return row_of_refused(
        request_id="r1",
        received_at=1_800_000_000.0,
        method=method,
        target=target,
        peer="192.0.2.1",
        status=431,
        duration_s=0.25,
        bytes_out=20,
    )


def test_the_row_of_what_the_server_refused_has_its_first_line_only():
    """Nobody read the rest of the head, and a query may hold anything."""
    assert refused(b"/api/chat?secret=1") == AuditRow(
        request_id="r1",
        received_at_us=1_800_000_000_000_000,
        tenant_id=None,
        key_id=None,
        key_prefix=None,
        peer="192.0.2.1",
        client_request_id=None,
        user_agent=None,
        method="POST",
        path="/api/chat",
        operation=None,
        surface="ollama",
        model=None,
        backend=None,
        stream=False,
        status=431,
        outcome="refused",
        error_code="malformed_request",
        prompt_tokens=None,
        completion_tokens=None,
        tokens_estimated=False,
        first_token_ms=None,
        load_ms=None,
        prompt_ms=None,
        generation_ms=None,
        duration_ms=250.0,
        bytes_in=0,
        bytes_out=20,
    )


@pytest.mark.parametrize(
    ("target", "path", "surface"),
    [
        pytest.param(b"", "", "openai", id="nothing came of it"),
        pytest.param(b"?x", "", "openai", id="only a query"),
        pytest.param(b"/v1/messages", "/v1/messages", "anthropic", id="another surface"),
        pytest.param(b"a:443", "a:443", "openai", id="of CONNECT"),
        pytest.param(b"/\x01\xff", "/\N{REPLACEMENT CHARACTER}\xff", "openai", id="odd bytes"),
        pytest.param(b"/" + KEY.encode(), "/nz_abc12345…", "openai", id="a key"),
        pytest.param(b"/" + b"a" * 8000, "/" + "a" * (MAX_TEXT - 1), "openai", id="long"),
    ],
)
def test_a_refused_target_is_cleaned_like_any_other(target: bytes, path: str, surface: str):
    row = refused(target)

    assert (row.path, row.surface) == (path, surface)


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (None, 200, Outcome.SERVED),
        (None, None, Outcome.CLIENT_LEFT),
        (Unauthenticated(), 401, Outcome.REFUSED),
        (Draining(), 503, Outcome.REFUSED),
        (BackendFailed("x"), 502, Outcome.BACKEND_FAILED),
        (BackendTimeout("x"), 504, Outcome.BACKEND_FAILED),
    ],
)
def test_the_outcome_follows_from_what_the_client_saw(
    error: GatewayError | None, status: int | None, outcome: Outcome
):
    assert outcome_of(error, status) is outcome


@pytest.mark.parametrize("text", [KEY, f"Bearer {KEY}", f"/v1/{KEY}/x", f"a{KEY}{KEY}"])
def test_a_key_is_cut_to_its_public_prefix(text: str):
    """A key may come in a path, a user agent or a model name; it stays out of the log all the same."""
    assert "S" not in cleaned(text)
    assert "nz_abc12345…" in cleaned(text)


def test_control_characters_cannot_forge_a_line():
    assert cleaned("a\r\nb\x1b[31mc\u2028d\x00") == "a��b�[31mc�d�"


@given(st.text())
def test_whatever_the_text_it_is_one_short_printable_line(text: str):
    kept = cleaned(text)

    assert len(kept) <= MAX_TEXT
    assert kept.encode("utf-8").decode("utf-8") == kept
    assert "\n" not in kept
