"""The words of an examination."""

from enum import StrEnum

from attrs import frozen


class Health(StrEnum):
    """How a check came out. Only `failed` stands in the way of serving as promised."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@frozen
class Finding:
    """A sentence for people, and what to do; `remedy` is "" where there is nothing to do."""

    check: str
    health: Health
    sentence: str
    remedy: str = ""


def ok(check: str, sentence: str) -> Finding:
    return Finding(check, Health.OK, sentence)


def warning(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, Health.WARNING, sentence, remedy)


def failed(check: str, sentence: str, remedy: str) -> Finding:
    return Finding(check, Health.FAILED, sentence, remedy)


def skipped(check: str, sentence: str) -> Finding:
    return Finding(check, Health.SKIPPED, sentence)
