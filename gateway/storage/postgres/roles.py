"""What the role that serves may do, where it is not the one that owns the tables.

It adds to the audit log and reads it; it can't change or delete a row, drop a table, or switch anything off.
So whoever takes over a gateway can't wipe away what it did before. What is not named here it may not use.
"""

from typing import Final

from psycopg import sql

from gateway.storage.postgres.connecting import address_of
from gateway.storage.postgres.libpq import connect, errors_told
from gateway.storage.refusals import Refused

_REMEMBERED: Final = "serving_role"
RIGHTS: Final = {
    "tenants": "SELECT",
    "keys": "SELECT, UPDATE (last_used_at)",
    "revision": "SELECT",
    # When a row came in is set where a gateway of an older version did not say it, and is in no proof.
    "audit": "SELECT, INSERT, UPDATE (recorded_at)",
    "audit_seals": "SELECT, INSERT",
    "audit_heads": "SELECT, INSERT, UPDATE",
    "audit_removals": "SELECT",
    "meta": "SELECT, INSERT, UPDATE",
    "ledger": "SELECT, INSERT, UPDATE",
    "sums": "SELECT, INSERT, UPDATE",
    "usage_hours": "SELECT, INSERT, UPDATE",
    "replicas": "SELECT, INSERT, UPDATE, DELETE",
    "quarantine": "SELECT, INSERT",
    "model_profiles": "SELECT",
    "drained_backends": "SELECT",
    "prompts": "SELECT, INSERT, DELETE",
    "prompt_keys": "SELECT, INSERT, DELETE",
    "admin_actions": "SELECT",
    "_yoyo_migration": "SELECT",
}
"""By table; tables that are not here are none of its business."""

_ROLE: Final = """
    SELECT rolsuper OR pg_has_role(rolname, relowner, 'USAGE')
    FROM pg_roles, pg_class WHERE rolname = %s AND pg_class.oid = 'audit'::regclass
"""
_SCHEMA: Final = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'audit'::regclass"
_KEEP: Final = """
    INSERT INTO meta (name, value) VALUES (%s, %s) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
# Roles that serve can write that name: it is believed only of a role that was let serve before.
_KEPT: Final = """
    SELECT rolname FROM meta JOIN pg_roles ON rolname = value
    WHERE name = %s AND EXISTS (
        SELECT 1 FROM pg_proc, aclexplode(proacl)
        WHERE pg_proc.oid = CAST('make_audit_days()' AS regprocedure) AND grantee = pg_roles.oid
    )
"""


class RoleUnusable(Refused):
    """The role can't be the one that serves."""


def grant_to(database_url: str, role: str) -> None:
    """Let a role serve, and do nothing else. Raises RoleUnusable, and DatabaseUnusable."""
    address = address_of(database_url)
    with errors_told(address), connect(address) as connection:
        found = connection.execute(_ROLE, (role,)).fetchone()
        if found is None:
            raise RoleUnusable(
                f"There is no role '{role}' yet: CREATE ROLE {role} LOGIN PASSWORD '…' makes it."
            )
        if found[0]:
            raise RoleUnusable(
                f"The role '{role}' owns the tables, or may do all that their owner may: the one that serves "
                "has to be another one."
            )
        (schema,) = connection.execute(_SCHEMA).fetchall()[0]
        for statement in _statements(role, schema):
            connection.execute(statement)
        connection.execute(_KEEP, (_REMEMBERED, role))


def regrant(database_url: str) -> None:
    """Give the serving role what it needs of new tables, where there is such a role."""
    address = address_of(database_url)
    with errors_told(address), connect(address) as connection:
        found = connection.execute(_KEPT, (_REMEMBERED,)).fetchone()
    if found is not None:
        grant_to(database_url, found[0])


def _statements(role: str, schema: str) -> list[sql.Composed]:
    """In the schema that the tables are in. Done twice, the same."""
    name, place = sql.Identifier(role), sql.Identifier(schema)
    made = [
        sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA {} FROM {}").format(place, name),
        sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(place, name),
    ]
    made += [
        sql.SQL("GRANT {} ON {} TO {}").format(sql.SQL(rights), sql.Identifier(table), name)
        for table, rights in RIGHTS.items()
    ]
    made.append(sql.SQL("GRANT EXECUTE ON FUNCTION make_audit_days() TO {}").format(name))
    return made
