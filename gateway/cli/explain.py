"""The command that tells what would become of a request."""

import shlex
from typing import Any, Final

import click

from gateway.accounting import BucketTake, Cold, PromptSize, RateTake, Scope, SlotTake, Standing, Take
from gateway.cli.keys import key_as_json
from gateway.cli.outlooks import Explanation, explanation_of
from gateway.cli.output import iso, json_option, show_facts, show_json, show_table, when
from gateway.cli.policies import BOUNDS, LIMITS, number, option_of, told
from gateway.cli.standings import field_of
from gateway.cli.stores import with_stores
from gateway.cli.words import Bound, Prefix
from gateway.errors import GatewayError, RequestTooExpensive
from gateway.model import KeyStatus
from gateway.rules.limits import counted, limit_of, remaining_of
from gateway.rules.prompts import prompt_bound
from gateway.rules.quota_headers import duration

# Of a chat that says nothing.
_LEAST_PROMPT: Final = PromptSize(messages=1)
_NUMBERS: Final = ("limit", "used", "reserved", "remaining", "resets_at")


@click.command()
@click.option("--prefix", required=True, type=Prefix(), help="The public prefix, as list-keys shows it.")
@click.option(
    "--prompt-tokens",
    type=Bound(),
    metavar="N",
    help="What its prompt is taken for: what the backend's tokenizer counts or, where it has none, a token a "
    f"byte and some more. Unless given {prompt_bound(_LEAST_PROMPT, context=None)}, as of an empty message.",
)
@click.option("--max-tokens", type=Bound(), metavar="N", help="The longest output that it asks for.")
@json_option
def explain_key(prefix: str, prompt_tokens: int | None, max_tokens: int | None, as_json: bool) -> None:
    """Tell whether a request of a key would be let in now.

    If not, by which limit or budget, with its numbers and what to do; else how long its output may be, and
    what refuses next. Asks what admission asks: with REDIS_URL the counters of all gateways, and beside them
    the ledger; without, the ledger alone. Takes nothing. Exit code 0 also when the answer is no.

    \b
    Examples:
      neuronetz-gateway explain-key --prefix nz_abc12345
      neuronetz-gateway explain-key --prefix nz_abc12345 --prompt-tokens 8_000 --max-tokens 1_000 --json
    """
    prompt = _LEAST_PROMPT if prompt_tokens is None else PromptSize(tokens=prompt_tokens, templates=0)
    found = with_stores(lambda stores: explanation_of(stores, prefix, prompt, max_tokens))
    if as_json:
        show_json(_as_json(found))
        return
    show_facts(_facts(found))
    click.echo()
    _show_bounds(found)
    click.echo(f"\n{_source(found)}")


# ── for programs ─────────────────────────────────────────────────────────────────────────


def _as_json(found: Explanation) -> dict[str, Any]:
    error, is_let_in = found.error, None if found.unknown else True
    return {
        **key_as_json(found.key),
        "as_of": iso(found.outlook.now),
        "counted_by": "ledger" if found.shared is None else "redis",
        "agrees": found.agrees,
        "unknown": found.unknown,
        "request": {"prompt_tokens": found.demand.prompt_bound, "max_tokens": found.demand.output},
        "admitted": is_let_in if error is None else False,
        "refusal": None if error is None else _refusal_as_json(found, error),
        "grant": None if error is not None else _grant_as_json(found),
        "next_bound": _next_as_json(found),
        "bounds": [_bound_as_json(found, standing) for standing in found.outlook.standings],
    }


def _refusal_as_json(found: Explanation, error: GatewayError) -> dict[str, Any]:
    if found.refused is None:
        by = {"scope": "key", "bound": None, **dict.fromkeys(_NUMBERS), "retry_at": None}
    else:
        standing = found.refused.standing
        by = {**_named(standing.take), **_numbers(standing), "retry_at": iso(found.refused.retry_at)}
    return {
        "reason": by["bound"] or ("outdated" if found.is_stale else found.status.value),
        **by,
        "status": error.status,
        "code": error.code,
        "message": str(error),
        "retry_after_s": error.retry_after_s,
        "advice": _advice(found),
    }


def _grant_as_json(found: Explanation) -> dict[str, Any]:
    clamped_by = found.clamped_by and _named(found.clamped_by)
    return {"tokens": found.granted, "max_tokens": found.output, "clamped_by": clamped_by}


def _next_as_json(found: Explanation) -> dict[str, Any] | None:
    if found.next_bound is None:
        return None
    take, requests = found.next_bound
    return {**_named(take), "requests": requests}


def _bound_as_json(found: Explanation, standing: Standing) -> dict[str, Any]:
    by_ledger = found.by_ledger(standing.take)
    numbers = _numbers(standing)
    if not found.is_known(standing.take):
        numbers = {**dict.fromkeys(numbers), "limit": numbers["limit"]}
    beside = by_ledger and {"used": by_ledger.used, "reserved": by_ledger.reserved}
    return {**_named(standing.take), **numbers, "ledger": beside}


def _numbers(standing: Standing) -> dict[str, Any]:
    numbers = limit_of(standing.take), standing.used, standing.reserved, remaining_of(standing)
    return dict(zip(_NUMBERS, (*numbers, iso(standing.resets_at)), strict=True))


def _named(take: Take) -> dict[str, str]:
    return {"scope": take.scope.value, "bound": field_of(take)}


# ── for people ───────────────────────────────────────────────────────────────────────────


def _facts(found: Explanation) -> list[tuple[str, str]]:
    demand, error = found.demand, found.error
    asked = f"{number(demand.prompt_bound)} tokens for its prompt, {number(demand.output)} for its output"
    facts = [("Key", told(found.key).removeprefix("the key ")), ("Request", asked)]
    if error is None:
        return [*facts, *_facts_of_grant(found)]
    refused = f"refused: {error.status} {error.code}, {_cause(found)}"
    return [*facts, ("Now", refused), ("Told", str(error)), ("To do", _advice(found))]


def _facts_of_grant(found: Explanation) -> list[tuple[str, str]]:
    clamp = "" if found.clamped_by is None else f", clamped by {_words(found.clamped_by)}"
    unless = " and ".join(BOUNDS[field] for field in found.unknown)
    facts = [("Now", f"let in, with {number(found.output)} tokens of output{clamp}")]
    if unless:
        facts.append(("Unless", f"{unless} are used up: only the running gateway knows, GET /v1/usage tells"))
    if found.next_bound is not None:
        take, requests = found.next_bound
        such = counted(requests, "such request")
        facts.append(("Next", f"{_words(take)}: room for {such} at once"))
    return facts


def _cause(found: Explanation) -> str:
    if found.refused is not None:
        return f"by {_words(found.refused.standing.take)}"
    if found.status is KeyStatus.ACTIVE:
        return "Redis knows of a later change than this database has"
    if found.status is KeyStatus.SUSPENDED:
        return f"the tenant was suspended on {when(found.key.tenant.suspended_at, '')}"
    if found.status is KeyStatus.REVOKED:
        return f"the key was revoked on {when(found.key.revoked_at, '')}"
    return f"the key expired on {when(found.key.expires_at, '')}"


def _words(take: Take) -> str:
    return f"{BOUNDS[field_of(take)]} of the {take.scope}"


def _advice(found: Explanation) -> str:
    """What an operator can do about a refusal: one sentence."""
    tenant = shlex.quote(found.key.tenant.name)
    if found.status is KeyStatus.SUSPENDED:
        return f"`neuronetz-gateway resume-tenant --name {tenant}` lets its keys in again."
    if found.status is not KeyStatus.ACTIVE:
        return f"`neuronetz-gateway create-key --tenant {tenant} --name NAME` makes another key."
    if found.refused is None:
        return f"After a restored backup, `neuronetz-gateway rebuild-counters --tenant {tenant}` tells Redis."
    take = found.refused.standing.take
    field = field_of(take)
    verb = "set-limits" if field in LIMITS else "set-budgets"
    is_own = take.scope is Scope.KEY and getattr(found.key.policy, field) is not None
    holder = f"--prefix {found.key.prefix}" if is_own else f"--tenant {tenant}"
    more = f"`neuronetz-gateway {verb} {holder} {option_of(field)} N` allows more"
    if isinstance(found.error, RequestTooExpensive):
        return f"{more}; else its prompt must be shorter."
    retry_at = found.refused.retry_at
    return f"{more}." if retry_at is None else f"{more}; else it may fit at {iso(retry_at)}."


def _show_bounds(found: Explanation) -> None:
    """A table of what applies; where there are counters and a ledger, of both."""
    both = () if found.shared is None else ("By ledger",)
    columns = ("At most", "Of the", "Limit", "Used", *both, "Reserved", *both, "Left", "Whole at")
    show_table(columns, [_row(found, standing) for standing in found.outlook.standings])


def _row(found: Explanation, standing: Standing) -> list[str]:
    take, by_ledger = standing.take, found.by_ledger(standing.take)
    row = [BOUNDS[field_of(take)], take.scope.value, number(limit_of(take))]
    if not found.is_known(take):
        return [*row, "?", "?", "?", "?"]
    for name in ("used", "reserved"):
        row.append(number(getattr(standing, name)))
        if found.shared is not None:
            row.append("" if by_ledger is None else number(getattr(by_ledger, name)))
    return [*row, number(remaining_of(standing), "no limit"), _whole_at(found, standing)]


def _whole_at(found: Explanation, standing: Standing) -> str:
    if isinstance(standing.take, RateTake | BucketTake) and standing.resets_at is not None:
        wait_s = standing.resets_at - found.outlook.now
        return "now" if wait_s <= 0 else f"in {duration(wait_s)}"
    return when(standing.resets_at, "at any time" if isinstance(standing.take, SlotTake) else "never")


def _source(found: Explanation) -> str:
    """Where the numbers are from, and what to think of differences."""
    if isinstance(found.told, Cold):
        return "By the ledger: Redis does not know this tenant yet, and is told with its next request."
    if found.shared is None:
        return "By the ledger, which running gateways write to moments after the fact."
    if found.agrees:
        return "Counted by Redis; the ledger tells the same."
    tenant = shlex.quote(found.key.tenant.name)
    return (
        "Counted by Redis; the ledger tells something else. Running gateways write to it moments after the "
        f"fact; if it stays so, run `neuronetz-gateway rebuild-counters --tenant {tenant}`."
    )
