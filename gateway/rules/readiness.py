"""What /readyz says, on either address."""

from collections.abc import Mapping, Sequence

from gateway.model import JsonObject


def readiness_document(missing: Sequence[str], lacking: Mapping[str, Sequence[str]]) -> JsonObject:
    """`status`, what is `missing` when it is not ready, and what single `backends` lack when some do."""
    told: JsonObject = {"status": "unavailable", "missing": list(missing)} if missing else {"status": "ok"}
    if lacking:
        told["backends"] = {name: list(lacks) for name, lacks in lacking.items()}
    return told
