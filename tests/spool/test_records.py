"""What the spool keeps, as JSON."""

import orjson
import pytest
from attrs import evolve

from gateway.accounting import Evidence
from gateway.spool.records import Audited, End, Intent, Record, Unreadable, decode, encode
from tests.storage.samples import audit_row, intent, settled

ROW = audit_row(1, prompt_tokens=None, first_token_ms=None)


RECORDS: dict[str, Record] = {
    "an intent": Intent(intent()),
    "an intent with its row": Intent(intent(), ROW),
    "a settlement": End(settled()),
    "a charge": End(evolve(settled(), evidence=Evidence.EXPIRED, estimated=True)),
    "a row": Audited(ROW),
    "a row with every sort of text": Audited(audit_row(2, user_agent="ünï \u2028 \U0001f600", stream=False)),
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_comes_back_as_it_was(record):
    assert decode(encode(record)) == record


def test_what_json_can_not_hold_is_brought_into_range():
    """A backend may count to 10^30: the row must not be lost for it."""
    mad = audit_row(1, prompt_tokens=10**30, completion_tokens=-(10**30), user_agent="a\ud800b")

    assert decode(encode(Audited(mad))) == Audited(
        evolve(mad, prompt_tokens=2**63 - 1, completion_tokens=1 - 2**63, user_agent="a?b")
    )


def test_an_older_gateways_rows_are_read():
    """A field that it did not know is what it is by default; one that is known no more is dropped."""
    kind, row = orjson.loads(encode(Audited(ROW)))
    del row["backend"], row["stream"]

    assert decode(orjson.dumps([kind, {**row, "gone": 1}])) == Audited(
        evolve(ROW, backend=None, stream=False)
    )


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'["intent"]',
        b'["end", {}]',
        b'["audit", 5]',
        b'["audit", {}]',
        b'["flying", {}]',
        b"\xff",
    ],
)
def test_what_is_no_record_is_told(payload):
    """An entry without its tokens is none either: nobody could say what it costs."""
    with pytest.raises(Unreadable):
        decode(payload)


def test_an_entry_of_an_unknown_evidence_is_unreadable():
    kind, entry = orjson.loads(encode(End(settled())))

    with pytest.raises(Unreadable, match="guessed"):
        decode(orjson.dumps([kind, {**entry, "evidence": "guessed"}]))
