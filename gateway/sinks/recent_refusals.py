"""The last refusals of each key, in memory, so that a caller can see why it was refused."""

from collections import OrderedDict, deque
from typing import Final

from gateway.model import AuditRow, Outcome
from gateway.rules.quota_headers import PastRefusal

EACH: Final = 10
# About 1 KB a key with refusals; who was not refused for the longest time is forgotten first.
MAX_KEYS: Final = 10_000


class RecentRefusals:
    """A sink. What this process has refused since it started; other replicas have their own."""

    is_full = False

    def __init__(self, max_keys: int = MAX_KEYS) -> None:
        self._max_keys = max_keys
        self._of: OrderedDict[str, deque[PastRefusal]] = OrderedDict()

    def record(self, row: AuditRow) -> None:
        if row.key_id is None or row.outcome != Outcome.REFUSED:
            return
        refusal = PastRefusal(
            at=row.received_at_us / 1e6,
            request_id=row.request_id,
            status=row.status,
            code=row.error_code or "",
            model=row.model,
        )
        self._of.setdefault(row.key_id, deque(maxlen=EACH)).append(refusal)
        self._of.move_to_end(row.key_id)
        if len(self._of) > self._max_keys:
            self._of.popitem(last=False)

    def of(self, key_id: str) -> list[PastRefusal]:
        """The newest first."""
        return list(reversed(self._of.get(key_id, ())))
