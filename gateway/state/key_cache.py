"""Whose key is this? From memory in microseconds, and still right one second after any change.

The order of checks is the design, each cheaper than what it guards: shape, checksum, keyed hash against
what is remembered, the database, keyed hash in constant time, and only then Argon2, once for each key and
process. A wrong key never gets as far as Argon2; unknown, wrong, revoked and expired ones look alike.

Nothing here holds a key: what is remembered goes by its keyed hash, whole, or by its public prefix.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Hashable
from functools import partial
from typing import Final, TypeVar

from attrs import frozen
from loguru import logger

from gateway.errors import Overloaded, StoreUnavailable, Unauthenticated
from gateway.model import Key, KeyStatus, Principal
from gateway.ports import Clock, PulsingKeyStore
from gateway.rules import keys
from gateway.rules.mac import Mac
from gateway.state.hasher import Hasher, UnusableHash
from gateway.state.last_uses import FLUSH_S, LastUses, Touch
from gateway.state.revision_watch import POLL_S, READ_S, RevisionWatch, Stamp

# What was known to be current so long ago is used without asking the database.
FRESH_S: Final = 1.0
# While the database is down, keys that were current so long ago go on.
OUTAGE_S: Final = 15 * 60.0
# About 1 KB each.
MAX_REMEMBERED: Final = 10_000
# A look-up takes some 0.2 ms: so many wait for at most a tenth of a second.
MAX_WAITING: Final = 256

_ENDED: Final = frozenset({KeyStatus.REVOKED, KeyStatus.EXPIRED})

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


@frozen
class _Verified:
    """A key that passed Argon2, as its record was read at `stamp`."""

    key: Key
    principal: Principal
    stamp: Stamp


@frozen
class _Seen:
    """What the database had under a prefix."""

    key: Key | None
    stamp: Stamp

    @property
    def mac(self) -> bytes | None:
        return None if self.key is None else self.key.mac


class VerifiedKeys:
    """The adapter behind `ports.Authenticator` and `ports.KnownCallers`.

    `start` and `stop` inside the event loop.
    """

    def __init__(
        self,
        store: PulsingKeyStore,
        touch: Touch,
        hasher: Hasher,
        secret: bytes,
        clock: Clock,
        *,
        max_remembered: int = MAX_REMEMBERED,
        poll_s: float = POLL_S,
        flush_s: float = FLUSH_S,
    ) -> None:
        self._store = store
        self._hasher = hasher
        self._mac = Mac(secret)
        self._clock = clock
        self.watch = RevisionWatch(store, clock, poll_s)
        self.last_uses = LastUses(touch, flush_s)
        # By keyed hash; only keys of ours get in, so a flood of wrong ones pushes nobody out.
        self._verified: _Recent[bytes, _Verified] = _Recent(max_remembered)
        # By prefix; also those that do not exist.
        self._seen: _Recent[str, _Seen] = _Recent(max_remembered)
        # By keyed hash, and under which revision they began.
        self._checks: dict[tuple[bytes, int | None], asyncio.Task[_Verified | None]] = {}
        # Of the database's connections, unknown keys and known ones get one each: a flood of the former
        # delays neither the latter nor the audit log.
        self._lane_of_unknown = _Lane(MAX_WAITING)
        self._lane_of_known = _Lane(max_remembered)

    async def start(self) -> None:
        await self.watch.start()
        await self.last_uses.start()

    async def stop(self) -> None:
        """Write the last uses, if the database takes them. Keys that are being checked get no answer."""
        await self.watch.stop()
        for check in list(self._checks.values()):
            check.cancel()
        await asyncio.gather(*self._checks.values(), return_exceptions=True)
        await self.last_uses.stop()

    @property
    def is_cut_off(self) -> bool:
        return self.watch.is_down

    @property
    def revision(self) -> int | None:
        return self.watch.revision

    async def renewed(self, principal: Principal) -> Principal | None:
        """As `ports.KnownCallers.renewed`: at most one read for all that a key runs, after each change."""
        seen = await self._read(principal.prefix, known=True)
        if seen.key is None or seen.key.revoked_at is not None:
            return None
        return _principal(seen.key, seen.stamp)

    async def principal_of(self, token: str, epoch: int = 0) -> Principal | None:
        """As `ports.Authenticator.principal_of`."""
        if not keys.is_well_formed(token):
            return None
        if epoch > 0:
            # All that is read from here on is as new, and nothing older is taken for current.
            await self.watch.reach(epoch)
        mac = keys.mac_of(self._mac, token)
        known = self._known(token, mac)
        if known is not None:
            return known if isinstance(known, Principal) else None
        checked = await self._checked(mac, token)
        return None if checked is None else self._admitted(checked)

    def at_once(self, token: str) -> Principal | Unauthenticated | None:
        """As `ports.Authenticator.at_once`."""
        if not keys.is_well_formed(token):
            return Unauthenticated()
        return self._known(token, keys.mac_of(self._mac, token))

    def tenant_of(self, prefix: str) -> str | None:
        """The name of the tenant that has the key of this prefix, as far as it is remembered."""
        seen = self._seen.get(prefix)
        return None if seen is None or seen.key is None else seen.key.tenant.name

    def holders_of(self, accounts: Collection[str]) -> dict[str, tuple[str, str]]:
        """By account, the tenant's name and the public prefix of those keys that are remembered.

        Of a key and its successor, the one that was used last.
        """
        keys_of_them = (one.key for one in self._verified.values() if one.key.account in accounts)
        return {key.account: (key.tenant.name, key.prefix) for key in keys_of_them}

    def _known(self, token: str, mac: bytes) -> Principal | Unauthenticated | None:
        """By what is remembered and still current; None where that says nothing."""
        verified = self._verified.get(mac)
        if verified is None:
            return Unauthenticated() if self._is_known_wrong(keys.prefix_of(token), mac) else None
        if self.watch.age_s(verified.stamp) >= FRESH_S:
            return None
        self._verified.move_to_end(mac)
        return self._admitted(verified) or Unauthenticated()

    def _admitted(self, verified: _Verified) -> Principal | None:
        now = self.watch.now()
        if verified.key.status(now) in _ENDED:
            return None
        self.last_uses.note(verified.key.id, now)
        return verified.principal

    def _is_known_wrong(self, prefix: str, mac: bytes) -> bool:
        seen = self._fresh(prefix)
        return seen is not None and not keys.matches(seen.mac, mac)

    def _fresh(self, prefix: str) -> _Seen | None:
        seen = self._seen.get(prefix)
        return None if seen is None or self.watch.age_s(seen.stamp) >= FRESH_S else seen

    async def _checked(self, mac: bytes, token: str) -> _Verified | None:
        """One check for all who ask for the same key at the same time; it goes on when one of them leaves."""
        about = mac, self.watch.revision
        check = self._checks.get(about)
        if check is None:
            check = self._checks[about] = asyncio.create_task(self._check(mac, token))
            check.add_done_callback(partial(self._check_ended, about))
        return await asyncio.shield(check)

    def _check_ended(self, about: tuple[bytes, int | None], check: asyncio.Task[_Verified | None]) -> None:
        del self._checks[about]
        if not check.cancelled():
            check.exception()  # seen, also when everybody who asked has left

    async def _check(self, mac: bytes, token: str) -> _Verified | None:
        """Read the record, compare, and run Argon2 unless this very hash passed it before."""
        before = self._verified.get(mac)
        try:
            seen = await self._read(keys.prefix_of(token), known=before is not None)
        except StoreUnavailable:
            if before is not None and self.watch.age_s(before.stamp) < OUTAGE_S:
                return before
            raise
        if seen.key is None or not keys.matches(seen.mac, mac):
            self._verified.drop(mac)
            return None
        is_proven = before is not None and before.key.argon2 == seen.key.argon2
        if not is_proven and not await self._passes_argon2(token, seen.key):
            return None
        verified = _Verified(seen.key, _principal(seen.key, seen.stamp), seen.stamp)
        self._verified.keep(mac, verified)
        if is_proven or self.watch.age_s(seen.stamp) < FRESH_S:
            return verified
        # Argon2 had to wait; the record may have changed meanwhile. Now it is proven, and read again only.
        return await self._check(mac, token)

    async def _passes_argon2(self, token: str, key: Key) -> bool:
        try:
            return await self._hasher.matches(token, key.argon2)
        except UnusableHash as error:
            logger.error(f"the stored hash of the key {key.prefix} is unusable: {error}")
            raise StoreUnavailable from error

    async def _read(self, prefix: str, *, known: bool) -> _Seen:
        """The record under a prefix, remembered or read. Raises StoreUnavailable, Overloaded."""
        lane = self._lane_of_known if known else self._lane_of_unknown
        async with lane.turn():
            seen = self._fresh(prefix)  # somebody before us may have read it
            if seen is None:
                seen = await self._read_now(prefix)
                self._seen.keep(prefix, seen)
        return seen

    async def _read_now(self, prefix: str) -> _Seen:
        if self.watch.is_pausing:
            raise StoreUnavailable
        stamp = self.watch.stamp()
        try:
            async with asyncio.timeout(READ_S):
                return _Seen(await self._store.key_by_prefix(prefix), stamp)
        except (StoreUnavailable, TimeoutError) as error:
            self.watch.note_failure()
            raise StoreUnavailable from error


class _Recent(OrderedDict[_K, _V]):
    """A bounded memory: what was not kept, nor moved to the end, for the longest time goes first."""

    def __init__(self, max_entries: int) -> None:
        super().__init__()
        self._max_entries = max_entries

    def keep(self, name: _K, value: _V) -> None:
        self[name] = value
        self.move_to_end(name)
        if len(self) > self._max_entries:
            self.popitem(last=False)

    def drop(self, name: _K) -> None:
        self.pop(name, None)


class _Lane:
    """One at a time; a bounded number waits, the others are told Overloaded."""

    def __init__(self, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._present = 0
        self._free = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        if self._present > self._max_waiting:
            raise Overloaded("Too many keys are being looked up at the moment; try again shortly.")
        self._present += 1
        try:
            async with self._free:
                yield
        finally:
            self._present -= 1


def _principal(key: Key, stamp: Stamp) -> Principal:
    return Principal(
        tenant_id=key.tenant.id,
        tenant=key.tenant.name,
        key_id=key.account,
        key=key.name,
        prefix=key.prefix,
        tenant_policy=key.tenant.policy,
        key_policy=key.policy,
        time_zone=key.tenant.time_zone,
        tenant_models=key.tenant.models,
        key_models=key.models,
        allow_cloud=key.tenant.allow_cloud,
        is_suspended=key.tenant.suspended_at is not None,
        allow_ip=key.allow_ip,
        weight=key.tenant.weight,
        log_prompts_s=key.log_prompts_s,
        prompt_generation=key.prompt_generation,
        epoch=stamp.revision or 0,
    )
