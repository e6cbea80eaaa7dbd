"""The command that says which models a tenant or key may use, and what other commands tell of it."""

import functools
from collections.abc import Callable
from typing import Any

import click
from attrs import asdict

from gateway.cli.changes import fail_untold, tell_gateways
from gateway.cli.holders import Target, of_key, of_tenant, target_of
from gateway.cli.output import json_option, show_facts, show_json
from gateway.cli.policies import (
    MODEL_BOUNDS,
    Holder,
    changed,
    changes_told,
    is_given,
    option_of,
    tenant_of,
    told,
)
from gateway.cli.stores import Stores, with_stores
from gateway.cli.words import Cap, Models
from gateway.model import Tenant
from gateway.rules.access import least
from gateway.storage.refusals import NoSuchKey, Refused

ModelChanges = dict[str, Any]
"""Fields of ModelPolicy that were given on the command line; None removes."""

_Command = Callable[..., None]


def model_options(command: _Command) -> _Command:
    """Give a command what concerns models. It is called with `model_changes`: what was given."""

    @functools.wraps(command)
    def with_changes(**values: Any) -> None:
        context = click.get_current_context()
        given = {field: values.pop(field) for field in ("models", *MODEL_BOUNDS)}
        changes = {field: value for field, value in given.items() if is_given(context, field)}
        command(model_changes=changes, **values)

    options = with_changes
    for field, words in reversed(list(MODEL_BOUNDS.items())):
        options = click.option(
            option_of(field), type=Cap(), metavar="N|none", help=f"At most so many {words}."
        )(options)
    return click.option(
        "--models",
        type=Models(),
        metavar="PATTERNS|none",
        help="Only these models: a comma list of names, * for any characters: 'llama3*,qwen3:8b'.",
    )(options)


cloud_option = click.option(
    "--allow-cloud/--no-cloud",
    "allow_cloud",
    default=None,
    help="For a tenant: whether its prompts may go to models that another machine answers for (m:cloud).",
)


@click.command()
@of_tenant
@of_key
@model_options
@cloud_option
@json_option
def allow_models(
    tenant: str | None,
    prefix: str | None,
    model_changes: ModelChanges,
    allow_cloud: bool | None,
    as_json: bool,
) -> None:
    """Say which models a tenant or key may use.

    Running gateways apply it within one second. Only what is given changes. `none` removes a list or bound.
    A tenant's and a key's both apply. Names are compared in their canonical form: llama3 is llama3:latest. To
    the caller a model that is not allowed looks like one that does not exist. Models that leave the box are
    refused unless the tenant was opted in.

    \b
    Examples:
      neuronetz-gateway allow-models --tenant acme --models 'llama3*,qwen3:8b' --max-num-ctx 16384
      neuronetz-gateway allow-models --prefix nz_abc12345 --models none
      neuronetz-gateway allow-models --tenant acme --allow-cloud
    """
    target = target_of(tenant, prefix)
    if allow_cloud is not None and target.tenant is None:
        raise click.UsageError(
            "Whether prompts may leave is said of a tenant: give --allow-cloud with --tenant."
        )
    if not model_changes and allow_cloud is None:
        raise click.UsageError(
            f"Nothing to change: give --models, {', '.join(map(option_of, MODEL_BOUNDS))} or --allow-cloud."
        )
    before, after, untold = with_stores(lambda stores: _allow(stores, target, model_changes, allow_cloud))
    differences = changed(before, after)
    if as_json:
        holder = {
            "tenant": tenant_of(after).name,
            "prefix": None if isinstance(after, Tenant) else after.prefix,
        }
        show_json({**holder, **models_as_json(after), "changed": differences})
    else:
        if differences:
            click.echo(f"Changed {told(after)}. Running gateways apply it within one second.")
            click.echo("".join(f"  {line}\n" for line in changes_told(differences)))
        else:
            click.echo(f"Nothing to do: {told(after)} has these values already.\n")
        show_facts(model_facts(after))
    fail_untold(untold)


async def _allow(
    stores: Stores, target: Target, changes: ModelChanges, allow_cloud: bool | None
) -> tuple[Holder, Holder, Refused | None]:
    """Change what is given: how it was before, is now, and why Redis could not be told. Raises Refused."""
    before: Holder
    after: Holder
    if target.prefix is not None:
        key = await stores.keys.key_by_prefix(target.prefix)
        if key is None:
            raise NoSuchKey(target.prefix)
        before, after = key, await stores.keys.set_models(key.prefix, **changes)
    else:
        before = await stores.tenants.by_name(target.tenant or "")
        after = await stores.tenants.set_models(before.name, allow_cloud=allow_cloud, **changes)
    return before, after, await tell_gateways(stores, after)


# ── what applies ─────────────────────────────────────────────────────────────────────────


def models_as_json(holder: Holder) -> dict[str, Any]:
    """The own values by name, and beside a key's those of its tenant, which apply too."""
    tenant = tenant_of(holder)
    own = asdict(holder.models)
    if isinstance(holder, Tenant):
        return {**own, "allow_cloud": tenant.allow_cloud}
    return {**own, "allow_cloud": tenant.allow_cloud, "tenant_models": asdict(tenant.models)}


def model_facts(holder: Holder) -> list[tuple[str, str]]:
    """Which models are there for a tenant or key, for people: a line each."""
    tenant = tenant_of(holder)
    bounds = {
        field: least(getattr(holder.models, field), getattr(tenant.models, field)) for field in MODEL_BOUNDS
    }
    return [
        ("Models", _models_told(holder)),
        *(("At most", f"{bound:,} {MODEL_BOUNDS[field]}") for field, bound in bounds.items() if bound),
        ("Cloud", "allowed" if tenant.allow_cloud else "refused"),
    ]


def _models_told(holder: Holder) -> str:
    own, tenant = holder.models.models, tenant_of(holder)
    of_tenant = None if isinstance(holder, Tenant) else tenant.models.models
    if own is None and of_tenant is None:
        return "all"
    if of_tenant is None:
        return ", ".join(own or ())
    if own is None:
        return f"{', '.join(of_tenant)} (the tenant's)"
    return f"{', '.join(own)}; of these only what the tenant's allow: {', '.join(of_tenant)}"
