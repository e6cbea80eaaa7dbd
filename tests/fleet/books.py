"""Four books of the same requests: what callers were told, what the model did, the ledger, and the counters.

In the end they have to say the same: `close` waits until they do, and tells what does not.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
from attrs import define, field

from tests.fleet.callers import Told
from tests.fleet.fleet import Customer, Fleet

_INFERENCE = "operation IN ('chat', 'chat_completions')"


@define
class Books:
    """Of one customer. `told` are the requests whose answers its callers have seen at least the head of."""

    fleet: Fleet
    customer: Customer
    told: Sequence[Told] = ()
    ledger: dict[str, dict[str, Any]] = field(factory=dict)
    """Entries by request id, once they are closed."""
    audit: dict[str, dict[str, Any]] = field(factory=dict)

    @property
    def spent(self) -> int:
        return sum(entry["tokens"] for entry in self.ledger.values())

    @property
    def truth(self) -> int:
        """Tokens that the model truly read and wrote for this customer."""
        return sum(map(self.fleet.model.cost_of, self.ledger))

    def close(self, within_s: float = 15.0) -> float:
        """Wait until all is at rest and equal; how many seconds it took. Then compare each request."""
        began = time.monotonic()
        differences = self.rest(within_s)
        assert not differences, differences
        took_s = time.monotonic() - began
        self.compare()
        return took_s

    def compare(self) -> None:
        """Each request by itself: what it cost by what it did, and what is audited by what its caller saw."""
        self._compare_costs()
        self._compare_answers()

    def rest(self, within_s: float) -> list[str]:
        """Wait until all is at rest and equal, and tell what is not in the end."""
        until = time.monotonic() + within_s
        while (differences := self._differences()) and time.monotonic() < until:
            time.sleep(0.1)
        return differences

    def slots(self, url: str) -> int:
        """How many requests run, by the counters; of a customer who is limited in that."""
        rows = self.standing(url)["limits"]
        return sum(row["used"] for row in rows if row["window"] == "concurrent")

    def standing(self, url: str) -> dict[str, Any]:
        """GET /v1/usage at one replica: the counters' book."""
        headers = {"Authorization": f"Bearer {self.customer.key}"}
        answer = httpx.get(f"{url}/v1/usage", headers=headers, timeout=10, trust_env=False)
        assert answer.status_code == 200, answer.text
        usage: dict[str, Any] = answer.json()
        return usage

    # ── at rest ──────────────────────────────────────────────────────────────────────────

    def _differences(self) -> list[str]:
        self._read()
        found = [f"{rid} is open" for rid, entry in self.ledger.items() if entry["evidence"] == "intent"]
        found += [f"{rid} is not audited" for rid in self._answered() - self.audit.keys()]
        for replica in self.fleet.replicas:
            if replica.is_running:
                found += self._differences_of(replica.url)
        return found

    def _read(self) -> None:
        entries = self.fleet.rows("SELECT * FROM ledger WHERE tenant_id = :id", id=self.customer.id)
        self.ledger = {entry["reservation_id"]: entry for entry in entries}
        of_inference = f"SELECT * FROM audit WHERE tenant_id = :id AND {_INFERENCE}"
        rows = self.fleet.rows(of_inference, id=self.customer.id)
        self.audit = {row["request_id"]: row for row in rows}
        assert len(self.audit) == len(rows)

    def _answered(self) -> set[str]:
        """Who was not answered has no id that we know."""
        return {one.request_id for one in self.told if one.request_id and one.status != 401}

    def _differences_of(self, url: str) -> list[str]:
        usage = self.standing(url)
        sums = self._sums()
        found = [
            f"{row['used']} run, by {url}"
            for row in usage["limits"]
            if row["window"] == "concurrent" and row["used"]
        ]
        for row in usage["budgets"]:
            by_ledger = sums[row["scope"], row["window"]]
            if (row["used"], row["reserved"]) != (by_ledger, 0):
                found.append(f"{row['scope']}'s {row['window']}: {row}; by the ledger {by_ledger}, by {url}")
        return found

    def _sums(self) -> Counter[tuple[str, str]]:
        """By scope and window; of the latest day and month."""
        sums: Counter[tuple[str, str]] = Counter()
        for window, column in (("day", "day"), ("month", "month"), ("total", None)):
            current = max((entry[column] for entry in self.ledger.values()), default=None) if column else None
            total = sum(
                entry["tokens"]
                for entry in self.ledger.values()
                if column is None or entry[column] == current
            )
            sums["tenant", window] = sums["key", window] = total
        return sums

    # ── request by request ───────────────────────────────────────────────────────────────

    def _compare_costs(self) -> None:
        """Exact where the backend counted; else between what it did and what was reserved."""
        for rid, entry in self.ledger.items():
            true = self.fleet.model.cost_of(rid)
            if entry["estimated"]:
                assert true <= entry["tokens"] <= entry["reserved"], (entry, true)
            else:
                assert entry["tokens"] == true, (entry, true)
        assert not set(self.fleet.model.repeated) & self.ledger.keys()

    def _compare_answers(self) -> None:
        """Each has one row, which says what its caller saw."""
        for one in self.told:
            if one.request_id in self.audit:
                assert self.audit[one.request_id]["status"] == one.status
            if one.is_complete:
                assert self.ledger[one.request_id]["tokens"] == one.tokens
