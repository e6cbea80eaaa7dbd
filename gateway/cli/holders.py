"""Whose settings a command changes: those of a tenant, by name, or of a key, by prefix."""

from typing import Final

import click
from attrs import frozen

from gateway.cli.words import Prefix

of_tenant: Final = click.option("--tenant", metavar="NAME", help="Change those of the tenant of this name.")
of_key: Final = click.option(
    "--prefix", type=Prefix(), help="Change those of the key with this public prefix."
)


@frozen
class Target:
    """One of both is given."""

    tenant: str | None
    prefix: str | None


def target_of(tenant: str | None, prefix: str | None) -> Target:
    """Raises UsageError unless exactly one is given."""
    if (tenant is None) == (prefix is None):
        raise click.UsageError("Whose? Give either --tenant or --prefix.")
    return Target(tenant, prefix)
