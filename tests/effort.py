"""How long those tests go on that chance or time decides. At night: `FUZZ_FACTOR=40`, forty times as long."""

import os
from typing import Final

FACTOR: Final = float(os.environ.get("FUZZ_FACTOR", "1"))


def times(count: float) -> int:
    """So many of them at this effort; one at least."""
    return max(1, round(count * FACTOR))
