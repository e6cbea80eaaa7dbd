"""Commands for keys."""

import secrets
import time
import uuid
from collections.abc import Sequence
from typing import Any

import click
from attrs import asdict

from gateway.accounting import Policy, Standing
from gateway.cli.changes import fail_untold, tell_gateways
from gateway.cli.model_access import ModelChanges, model_facts, model_options, models_as_json
from gateway.cli.output import iso, json_option, show_facts, show_json, show_table, when
from gateway.cli.policies import (
    BOUNDS,
    Changes,
    policy_as_json,
    policy_options,
    show_denial,
    show_policy,
    told,
)
from gateway.cli.standings import show_usage, standings_of, usage_as_json
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Ending, Keeping, LogPrompts, Moment, Name, Networks, Prefix, span
from gateway.model import Key, ModelPolicy, Network
from gateway.rules.addresses import written
from gateway.rules.keys import mac_of, new_token, prefix_of
from gateway.rules.mac import Mac
from gateway.state.hasher import argon2_of
from gateway.storage.keys import Revocation
from gateway.storage.refusals import NoSuchKey, Refused


@click.command()
@click.option("--tenant", required=True, help="The name of the tenant that owns the key.")
@click.option("--name", required=True, type=Name(), help="1 to 64 characters; unique within the tenant.")
@click.option(
    "--expires",
    type=Moment(),
    help="When the key ends: 12h, 30d, 4w from now, or an ISO date such as 2027-01-31 (00:00 UTC).",
)
@click.option(
    "--allow-ip",
    type=Networks(),
    multiple=True,
    metavar="NETWORK",
    help="A network or address that it may be used from, such as 10.0.0.0/8; repeat it for more. "
    "Without: from anywhere.",
)
@click.option(
    "--log-prompts",
    type=LogPrompts(),
    metavar="DURATION",
    help="Keep what it asks and is answered, encrypted, for so long: 12h, 7d. Without: nothing of it.",
)
@policy_options(BOUNDS)
@model_options
@json_option
def create_key(
    *,
    tenant: str,
    name: str,
    expires: Ending | None,
    allow_ip: tuple[tuple[Network, ...], ...],
    log_prompts: Keeping | None,
    changes: Changes,
    model_changes: ModelChanges,
    as_json: bool,
) -> None:
    """Make a key and print it, this one time.

    What is not given of limits and budgets is inherited from the tenant, whose own hold in any case; 0 denies
    all requests. `set-limits`, `set-budgets` and `allow-models` change them later.

    \b
    Examples:
      neuronetz-gateway create-key --tenant acme --name prod-server-1
      neuronetz-gateway create-key --tenant acme --name trial --expires 30d --total-tokens 100_000 --json
      neuronetz-gateway create-key --tenant acme --name chat --models 'llama3*,qwen3:8b'
    """
    policy, models = Policy(**changes), ModelPolicy(**model_changes)
    networks = tuple(dict.fromkeys(network for one in allow_ip for network in one))
    key, token = with_stores(
        lambda stores: make_key(
            stores,
            tenant,
            name,
            expires=expires,
            policy=policy,
            models=models,
            allow_ip=networks,
            log_prompts_s=None if log_prompts is None else log_prompts.seconds,
        )
    )
    if as_json:
        show_json({**key_as_json(key), "key": token})
        return
    ends = when(key.expires_at, "never")
    click.echo(f"Made the key '{key.name}' of the tenant '{key.tenant.name}'. Expires: {ends}.\n")
    click.echo(f"  {token}\n")
    click.echo("Keep it now: only its hash is stored, so it can't be shown again.")
    if key.log_prompts_s is not None:
        kept = span(key.log_prompts_s)
        click.echo(f"What it asks and is answered is kept, encrypted, for {kept}: tell its users.")
    show_denial(key)


@click.command()
@click.option("--tenant", help="Only the keys of the tenant of this name.")
@json_option
def list_keys(tenant: str | None, as_json: bool) -> None:
    """List keys with their state; never the keys themselves.

    \b
    Examples:
      neuronetz-gateway list-keys
      neuronetz-gateway list-keys --tenant acme --json
    """
    keys = with_stores(lambda stores: _list(stores, tenant))
    if as_json:
        show_json([key_as_json(key) for key in keys])
    elif not keys:
        click.echo("There are no keys yet; `neuronetz-gateway create-key` makes one.")
    else:
        columns: tuple[str, ...] = ("Prefix", "Tenant", "Name", "Status", "Created", "Last used", "Expires")
        rows = [_as_row(key) for key in keys]
        if any(key.log_prompts_s is not None for key in keys):
            columns = (*columns, "Prompts")
            rows = [(*row, prompts_told(key)) for row, key in zip(rows, keys, strict=True)]
        show_table(columns, rows)


@click.command()
@click.option("--prefix", required=True, type=Prefix(), help="The public prefix, as list-keys shows it.")
@json_option
def show_key(prefix: str, as_json: bool) -> None:
    """Show a key: its limits and budgets, and their use.

    Used and reserved are by the ledger, which running gateways write to moments after the fact.

    \b
    Example:
      neuronetz-gateway show-key --prefix nz_abc12345
    """
    now = time.time()
    key, standings = with_stores(lambda stores: _look_at(stores, prefix, now))
    if as_json:
        shown = {
            **key_as_json(key),
            "id": key.id,
            "account_id": key.account,
            "time_zone": key.tenant.time_zone,
        }
        show_json({**shown, **models_as_json(key), **policy_as_json(key), "usage": usage_as_json(standings)})
        return
    show_facts([*_facts(key, now), *model_facts(key)])
    click.echo()
    show_usage(standings)
    click.echo()
    show_policy(key)


@click.command()
@click.option("--prefix", required=True, type=Prefix(), help="The public prefix, as list-keys shows it.")
@json_option
def revoke_key(prefix: str, as_json: bool) -> None:
    """End a key for good: running gateways refuse it within one second.

    \b
    Example:
      neuronetz-gateway revoke-key --prefix nz_abc12345
    """
    revocation, untold = with_stores(lambda stores: _revoke(stores, prefix))
    key = revocation.key
    if as_json:
        show_json({**key_as_json(key), "already_revoked": revocation.already})
    elif revocation.already:
        click.echo(f"Nothing to do: {told(key)} was revoked on {when(key.revoked_at, '')} already.")
    else:
        click.echo(f"Revoked {told(key)}. Running gateways refuse it within one second.")
    fail_untold(untold)


async def make_key(
    stores: Stores,
    tenant_name: str,
    name: str,
    *,
    expires: Ending | None = None,
    policy: Policy | None = None,
    models: ModelPolicy | None = None,
    allow_ip: tuple[Network, ...] = (),
    log_prompts_s: int | None = None,
) -> tuple[Key, str]:
    """Make a key and keep its hashes: what is kept, and the key itself. Raises Refused."""
    tenant = await stores.tenants.by_name(tenant_name)
    token = new_token(secrets.randbelow)
    secret = await stores.secret()
    key = Key(
        id=uuid.uuid4().hex,
        tenant=tenant,
        name=name,
        prefix=prefix_of(token),
        mac=mac_of(Mac(secret), token),
        argon2=argon2_of(token),
        created_at=time.time(),
        expires_at=None if expires is None else expires(await stores.replicas.now()),
        policy=policy or Policy(),
        models=models or ModelPolicy(),
        allow_ip=allow_ip,
        log_prompts_s=log_prompts_s,
    )
    await stores.keys.add(key)
    return key, token


async def _list(stores: Stores, tenant: str | None) -> list[Key]:
    return await stores.keys.all(None if tenant is None else await stores.tenants.by_name(tenant))


async def _revoke(stores: Stores, prefix: str) -> tuple[Revocation, Refused | None]:
    revocation = await stores.keys.revoke(prefix, time.time())
    return revocation, await tell_gateways(stores, revocation.key)


async def _look_at(stores: Stores, prefix: str, now: float) -> tuple[Key, Sequence[Standing]]:
    key = await stores.keys.key_by_prefix(prefix)
    if key is None:
        raise NoSuchKey(prefix)
    return key, await standings_of(stores, key, now)


def _facts(key: Key, now: float) -> list[tuple[str, str]]:
    return [
        ("Key", key.name),
        ("Prefix", key.prefix),
        ("Id", key.id if key.id == key.account else f"{key.id}, of the account {key.account}"),
        ("Tenant", key.tenant.name),
        ("Status", key.status(now).value),
        ("Created", when(key.created_at, "")),
        ("Last used", when(key.last_used_at, "never")),
        ("Expires", when(key.expires_at, "never")),
        ("Revoked", when(key.revoked_at, "no")),
        ("Addresses", written(key.allow_ip) or "any"),
        ("Prompts", prompts_told(key)),
        ("Time zone", f"{key.tenant.time_zone}, the tenant's"),
    ]


def prompts_told(key: Key) -> str:
    """Whether what it asks is kept, and for how long."""
    return "not kept" if key.log_prompts_s is None else f"kept for {span(key.log_prompts_s)}"


def key_as_json(key: Key) -> dict[str, Any]:
    """A key as every command tells it to programs, with the bounds of its own by their names."""
    return {
        "prefix": key.prefix,
        "name": key.name,
        "tenant": key.tenant.name,
        "status": key.status(time.time()).value,
        "created_at": iso(key.created_at),
        "last_used_at": iso(key.last_used_at),
        "expires_at": iso(key.expires_at),
        "revoked_at": iso(key.revoked_at),
        "allow_ip": [str(network) for network in key.allow_ip],
        "log_prompts_s": key.log_prompts_s,
        **asdict(key.policy),
        **asdict(key.models),
    }


def _as_row(key: Key) -> tuple[str, ...]:
    return (
        key.prefix,
        key.tenant.name,
        key.name,
        key.status(time.time()).value,
        when(key.created_at, ""),
        when(key.last_used_at, "never"),
        when(key.expires_at, "never"),
    )
