"""Commands for what a key goes through: another name, another end, other addresses, a successor."""

import secrets
import uuid
from typing import Any

import click

from gateway.cli.changes import fail_untold, tell_gateways
from gateway.cli.clearing import shorten
from gateway.cli.keys import key_as_json, prompts_told
from gateway.cli.output import json_option, show_json, when
from gateway.cli.policies import told
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Ending, Grace, Keeping, LogPrompts, Moment, Name, Networks, Prefix
from gateway.model import Key, Network
from gateway.rules.addresses import written
from gateway.rules.keys import mac_of, new_token, prefix_of
from gateway.rules.mac import Mac
from gateway.state.hasher import argon2_of
from gateway.storage.actions import differences
from gateway.storage.keys import Proof, Rotation
from gateway.storage.refusals import Refused

_prefix = click.option(
    "--prefix", required=True, type=Prefix(), help="The public prefix, as list-keys shows it."
)
_WORDS = {
    "name": "name",
    "expires_at": "expires",
    "allow_ip": "allowed addresses",
    "log_prompts_s": "prompts",
}


@click.command()
@_prefix
@click.option("--name", type=Name(), help="1 to 64 characters; unique within the tenant.")
@click.option("--expires", type=Moment(or_none=True), help="When the key ends, as in create-key; or none.")
@click.option(
    "--allow-ip",
    type=Networks(),
    multiple=True,
    metavar="NETWORK|none",
    help="A network or address that it may be used from, in place of those before; repeat it for more.",
)
@click.option(
    "--log-prompts",
    type=LogPrompts(),
    metavar="DURATION|off",
    help="Keep what it asks and is answered, encrypted, for so long: 12h, 7d; or keep nothing from now on.",
)
@json_option
def update_key(
    *,
    prefix: str,
    name: str | None,
    expires: Ending | None,
    allow_ip: tuple[tuple[Network, ...], ...],
    log_prompts: Keeping | None,
    as_json: bool,
) -> None:
    """Change a key's name, its end, from where it may be used, or whether its prompts are kept.

    Only what is given changes. Running gateways apply it within one second: a request from an address that is
    not allowed is 403. `set-limits` and `set-budgets` change limits and budgets, `allow-models` the models.

    --log-prompts is also for what the key was rotated from or to. A shorter time holds for what is kept
    already, too; with `off` that stays until its own time is over: `purge-prompts` destroys it at once.

    \b
    Examples:
      neuronetz-gateway update-key --prefix nz_abc12345 --name prod-server-2 --expires none
      neuronetz-gateway update-key --prefix nz_abc12345 --allow-ip 10.0.0.0/8 --allow-ip 2001:db8::/32
      neuronetz-gateway update-key --prefix nz_abc12345 --log-prompts 7d
    """
    changes: dict[str, Any] = {} if name is None else {"name": name}
    if allow_ip:
        changes["allow_ip"] = tuple(dict.fromkeys(network for one in allow_ip for network in one))
    if log_prompts is not None:
        changes["log_prompts_s"] = log_prompts.seconds
    if not changes and expires is None:
        raise click.UsageError(
            "Nothing to change: give at least one of --name, --expires, --allow-ip, --log-prompts."
        )
    before, after, untold = with_stores(lambda stores: _update(stores, prefix, changes, expires))
    differing = differences(before, after)
    if as_json:
        changed = {field: {"before": was, "after": now} for field, (was, now) in differing.items()}
        show_json({**key_as_json(after), "changed": changed})
    elif differing:
        click.echo(f"Changed {told(after)}. Running gateways apply it within one second.")
        for field in differing:
            click.echo(f"  {_WORDS[field]}: {_shown(after, field)}, was {_shown(before, field)}")
    else:
        click.echo(f"Nothing to do: {told(after)} is so already.")
    fail_untold(untold)


@click.command()
@_prefix
@click.option(
    "--grace",
    type=Grace(),
    default="24h",
    show_default=True,
    help="How long the old key goes on: 30m, 24h, 7d; 0 ends it at once.",
)
@click.option("--expires", type=Moment(or_none=True), help="When the new key ends; else as the old one.")
@json_option
def rotate_key(prefix: str, grace: float, expires: Ending | None, as_json: bool) -> None:
    """Make a successor of a key, and print it, this one time.

    It has the old key's name and all that was allowed to it. Both are one account: they share limits, budgets
    and usage, so rotating refills nothing. The old key, now called by its prefix too, works until the grace
    is over. Where it leaked, --grace 0 revokes it at once, which ends its running streams within 10 seconds.

    \b
    Examples:
      neuronetz-gateway rotate-key --prefix nz_abc12345
      neuronetz-gateway rotate-key --prefix nz_abc12345 --grace 0 --expires 90d --json
    """
    rotation, token, untold = with_stores(lambda stores: _rotate(stores, prefix, grace, expires))
    old, new = rotation.old, rotation.new
    if as_json:
        show_json({**key_as_json(new), "key": token, "successor_of": key_as_json(old)})
    else:
        click.echo(
            f"Made the successor of {old.prefix}: {told(new)}. Expires: {when(new.expires_at, 'never')}."
        )
        click.echo(f"\n  {token}\n")
        click.echo("Keep it now: only its hash is stored, so it can't be shown again.")
        ends = "is revoked" if old.revoked_at is not None else f"works until {when(old.expires_at, '')}"
        click.echo(f"The old key {ends}.")
    fail_untold(untold)


async def _update(
    stores: Stores, prefix: str, changes: dict[str, Any], expires: Ending | None
) -> tuple[Key, Key, Refused | None]:
    if expires is not None:
        changes = {**changes, "expires_at": expires(await stores.replicas.now())}
    before, after = await stores.keys.update(prefix, **changes)
    untold = await tell_gateways(stores, after)
    if changes.get("log_prompts_s") is not None:
        await shorten(stores, after)
    return before, after, untold


async def _rotate(
    stores: Stores, prefix: str, grace_s: float, expires: Ending | None
) -> tuple[Rotation, str, Refused | None]:
    secret = await stores.secret()
    token = new_token(secrets.randbelow)
    proof = Proof(uuid.uuid4().hex, prefix_of(token), mac_of(Mac(secret), token), argon2_of(token))
    rotation = await stores.keys.rotate(prefix, proof, grace_s=grace_s, expires=expires)
    return rotation, token, await tell_gateways(stores, rotation.new)


def _shown(key: Key, field: str) -> str:
    match field:
        case "expires_at":
            return when(key.expires_at, "never")
        case "allow_ip":
            return written(key.allow_ip) or "any"
        case "log_prompts_s":
            return prompts_told(key)
        case _:
            return key.name
