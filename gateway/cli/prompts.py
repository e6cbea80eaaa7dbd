"""Commands for the prompt log: what is kept of keys that opted in is shown, or destroyed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from time import gmtime, strftime, time
from typing import Any, Final

import click
import orjson
from attrs import asdict, frozen

from gateway.cli.clearing import clear
from gateway.cli.confirming import confirm, refuse_unasked, yes_option
from gateway.cli.output import iso, json_option, show_json
from gateway.cli.policies import told
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Past, Prefix
from gateway.model import Key, Tenant
from gateway.rules.limits import counted
from gateway.state.sealing import Sealer, Unsealable
from gateway.storage.prompts import Destroyed, FoundPrompt, PromptSelection
from gateway.storage.refusals import NoSuchKey

_DAY_S: Final = 24 * 60 * 60.0
# What a terminal would obey rather than show; line ends and tabs are text.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_SAID: Final = ("operation", "model", "prompt", "turns_left_out", "tools", "answers", "cut")

_prefix = click.option("--prefix", type=Prefix(), help="Of the key with this public prefix.")


@frozen
class _Shown:
    """A prompt that was opened; `said` is None where it could not be. `key` is the newest of its account."""

    found: FoundPrompt
    said: Mapping[str, Any] | None
    key: Key | None


@click.command()
@_prefix
@click.option("--tenant", help="Of the tenant of this name.")
@click.option("--request-id", help="Of this request: x-request-id of its answer.")
@click.option("--since", type=Past(), help="As 12h, 30d, or a date, 2026-11-01; without: 24h.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000), default=20, show_default=True, help="The last so many."
)
@click.option("--reason", help="Why they are looked at; it is noted beside who and which.")
@json_option
def show_prompts(
    *,
    prefix: str | None,
    tenant: str | None,
    request_id: str | None,
    since: float | None,
    limit: int,
    reason: str | None,
    as_json: bool,
) -> None:
    """Show what callers asked and were answered, of keys whose prompts are kept.

    It takes GATEWAY_SECRET, under which they are encrypted. That they are shown is noted before they are:
    who, which requests, and the reason; `list-actions` shows it. Control characters are not printed.

    \b
    Examples:
      neuronetz-gateway show-prompts --request-id req_019ad0c1f2a35b9c --reason 'ticket 4711'
      neuronetz-gateway show-prompts --prefix nz_abc12345 --since 1h --json
    """
    if not (prefix or tenant or request_id):
        raise click.UsageError("Say whose: give --prefix, --tenant or --request-id.")
    asked = (prefix, tenant, request_id)
    from_when = since if since is not None else (0.0 if request_id else time() - _DAY_S)
    shown = with_stores(lambda stores: _shown(stores, asked, from_when, limit, reason))
    if as_json:
        show_json([_as_json(one) for one in shown])
    elif not shown:
        click.echo(
            "Nothing is kept of that. Prompts are kept of keys with --log-prompts only, as show-key says."
        )
    else:
        click.echo("\n\n".join("\n".join(_lines(one)) for one in shown))
    if any(one.said is None for one in shown):
        raise click.ClickException(
            "Some could not be opened: they were sealed under another secret, or altered in the database."
        )


@click.command()
@_prefix
@click.option("--tenant", help="Of all keys of the tenant of this name.")
@yes_option
@json_option
def purge_prompts(prefix: str | None, tenant: str | None, yes: bool, as_json: bool) -> None:
    """Destroy what is kept of a key's prompts and answers, or of a tenant's, at once and for good.

    First the keys that they are encrypted with: without these no copy of a row can be read. Then the rows,
    page by page; cut short, a running gateway does the rest. What waits in gateways' memory is let go of with
    their next write. Whether prompts are kept from now on is another
    matter: `update-key --log-prompts off` ends that. `--prefix` is also for what the key was rotated from or
    to.

    \b
    Examples:
      neuronetz-gateway purge-prompts --prefix nz_abc12345
      neuronetz-gateway purge-prompts --tenant acme --yes --json
    """
    if (prefix is None) == (tenant is None):
        raise click.UsageError("Say whose: give either --prefix or --tenant.")
    refuse_unasked(yes=yes, as_json=as_json)
    if not yes:
        holder, there = with_stores(lambda stores: _counted(stores, prefix, tenant))
        confirm(f"Destroy {counted(there.prompts, 'prompt')} of {_whose(holder)} for good?", yes=yes)
    holder, destroyed = with_stores(lambda stores: _purged(stores, prefix, tenant))
    if as_json:
        owner = holder if isinstance(holder, Tenant) else holder.tenant
        of_key = {"prefix": None if isinstance(holder, Tenant) else holder.prefix}
        show_json({"tenant": owner.name, **of_key, **asdict(destroyed)})
        return
    keys = counted(destroyed.data_keys, "data key")
    click.echo(f"Destroyed {counted(destroyed.prompts, 'prompt')} of {_whose(holder)}, and {keys}.")
    if isinstance(holder, Key) and holder.log_prompts_s is not None:
        click.echo("What it asks from now on is kept as before: `update-key --log-prompts off` ends that.")


async def _shown(
    stores: Stores,
    asked: tuple[str | None, str | None, str | None],
    since: float,
    limit: int,
    reason: str | None,
) -> list[_Shown]:
    prefix, tenant, request_id = asked
    secret = await stores.secret()
    holder = await _holder(stores, prefix, tenant) if prefix or tenant else None
    owner = holder.tenant if isinstance(holder, Key) else holder
    account = holder.account if isinstance(holder, Key) else None
    selection = PromptSelection(since, limit, None if owner is None else owner.id, account, request_id)
    noted = {"reason": reason, "since": None if request_id else iso(since)}
    found = await stores.prompts.show(selection, holder, noted)
    keys = {key.account: key for key in await stores.keys.all()}  # of an account, the newest is the last
    sealer = Sealer(secret)
    return [_Shown(one, _opened(sealer, one), keys.get(one.account_id)) for one in found]


def _opened(sealer: Sealer, found: FoundPrompt) -> Mapping[str, Any] | None:
    try:
        key = sealer.opened(found.prompt_key_id, found.account_id, found.wrapped)
        said: Mapping[str, Any] = orjson.loads(key.unseal(found.request_id, found.sealed))
    except Unsealable:
        return None
    return said


async def _holder(stores: Stores, prefix: str | None, tenant: str | None) -> Key | Tenant:
    """The key if one is named, which must be the tenant's if that is, too. Raises NoSuchKey, NoSuchTenant."""
    owner = None if tenant is None else await stores.tenants.by_name(tenant)
    if prefix is None:
        assert owner is not None  # noqa: S101 - says it to mypy: one of the two is given
        return owner
    key = await stores.keys.key_by_prefix(prefix)
    if key is None or (owner is not None and key.tenant.id != owner.id):
        raise NoSuchKey(prefix)
    return key


async def _counted(stores: Stores, prefix: str | None, tenant: str | None) -> tuple[Key | Tenant, Destroyed]:
    holder = await _holder(stores, prefix, tenant)
    return holder, await stores.prompts.count(holder)


async def _purged(stores: Stores, prefix: str | None, tenant: str | None) -> tuple[Key | Tenant, Destroyed]:
    holder = await _holder(stores, prefix, tenant)
    destroyed = await stores.prompts.purge(holder)
    await clear(stores, destroyed)
    return holder, destroyed


def _whose(holder: Key | Tenant) -> str:
    return f"the tenant '{holder.name}'" if isinstance(holder, Tenant) else told(holder)


def _as_json(shown: _Shown) -> dict[str, Any]:
    found = shown.found
    return {
        "request_id": found.request_id,
        "logged_at": iso(found.logged_at),
        "expires_at": iso(found.expires_at),
        "tenant": shown.key.tenant.name if shown.key else None,
        "prefix": shown.key.prefix if shown.key else None,
        "key_name": shown.key.name if shown.key else None,
        "readable": shown.said is not None,
        **{name: (shown.said or {}).get(name) for name in _SAID},
    }


def _lines(shown: _Shown) -> Iterator[str]:
    at = strftime("%Y-%m-%d %H:%M:%S UTC", gmtime(shown.found.logged_at))
    who = f"{shown.key.prefix} of {shown.key.tenant.name}" if shown.key else shown.found.account_id
    if shown.said is None:
        yield f"{at}  {shown.found.request_id}  {who}: it can't be opened"
        return
    said = shown.said
    yield f"{at}  {shown.found.request_id}  {who}  {said['operation']}  {_harmless(said['model'])}"
    if said["turns_left_out"]:
        yield f"  [… {said['turns_left_out']:,} earlier turns left out]"
    for turn in said["prompt"]:
        yield from _turn_lines(turn["role"], turn)
    for answer in said["answers"]:
        yield from _turn_lines("answer", answer)
        if not answer["finish"]:
            yield "  [the answer was cut short]"
    if not said["answers"]:
        yield "  [no answer in text]"


def _turn_lines(role: str, turn: Mapping[str, Any]) -> Iterator[str]:
    label = f"{role} ({turn['name']})" if turn.get("name") else role
    for part in _parts(turn):
        first, *others = _harmless(part).splitlines() or [""]
        yield f"  {_harmless(label)}: {first}"
        yield from (f"    {line}" for line in others)


def _parts(turn: Mapping[str, Any]) -> Sequence[str]:
    thinking = [f"(thinking) {turn['thinking']}"] if turn.get("thinking") else []
    calls = [f"(calls) {call['name']} {call['arguments']}" for call in turn.get("tool_calls", ())]
    files = [
        f"({one['media_type']}, {one['bytes']:,} bytes, not kept)" for one in turn.get("attachments", ())
    ]
    text = [turn["content"]] if turn["content"] or not (thinking or calls or files) else []
    return [*thinking, *text, *calls, *files]


def _harmless(text: str) -> str:
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
