"""What the kept state does not allow, in sentences for the operator. They name files: never for callers."""

from gateway.model import Tenant


class Refused(Exception):
    """The base: `str()` is a sentence that says what happened and what to do."""


class DatabaseUnusable(Refused):
    """The database can't be used as it is."""


class AnotherServes(DatabaseUnusable):
    """A gateway that counts limits and budgets for itself shares its database with no other."""

    def __init__(self, database: str) -> None:
        super().__init__(
            f"Another gateway serves on the database {database}: stop it, or give both the same REDIS_URL, "
            "so that they count limits and budgets together."
        )


class RedisUnusable(Refused):
    """This Redis does not answer, or would lose what it is told."""


class SecretUnusable(Refused):
    """The secret can't be read, or is not the one that the stored keys were made with."""


class TenantNameTaken(Refused):
    def __init__(self, taken_by: Tenant) -> None:
        super().__init__(f"There is a tenant '{taken_by.name}' already; choose another name.")


class KeyNameTaken(Refused):
    def __init__(self, name: str, tenant: Tenant) -> None:
        super().__init__(
            f"The tenant '{tenant.name}' has, or had, a key '{name}' already; choose another name, so that "
            "the audit log stays clear."
        )


class NoSuchTenant(Refused):
    def __init__(self, name: str, near: str | None = None) -> None:
        hint = f"did you mean '{near}'?" if near else "`neuronetz-gateway list-tenants` shows all."
        super().__init__(f"There is no tenant '{name}'; {hint}")


class NoSuchKey(Refused):
    def __init__(self, prefix: str) -> None:
        super().__init__(
            f"There is no key with the prefix '{prefix}'; `neuronetz-gateway list-keys` shows all."
        )


class KeyEnded(Refused):
    def __init__(self, prefix: str, status: str) -> None:
        super().__init__(
            f"The key {prefix} is {status}, so there is nothing to hand over; `neuronetz-gateway create-key` "
            "makes a new one."
        )


class KeyRotated(Refused):
    def __init__(self, prefix: str, successor: str) -> None:
        super().__init__(
            f"The key {prefix} was rotated already: its successor is {successor}. Rotate or revoke that one."
        )


class NoSuchProfile(Refused):
    def __init__(self, name: str, near: str | None = None) -> None:
        hint = f"did you mean '{near}'?" if near else "`neuronetz-gateway list-models` shows all."
        super().__init__(f"There is no profile '{name}'; {hint}")
