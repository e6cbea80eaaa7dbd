"""Profiles of models as they are kept."""

import difflib
import json
from typing import Any, Final

from attrs import asdict

from gateway.formats.profiles import PhaseTimeouts, Profile, options_of, public, sampling_of
from gateway.storage.actions import NOBODY, Actor, Changes, note
from gateway.storage.database import Database, Row, Session
from gateway.storage.refusals import NoSuchProfile

_ALL: Final = "SELECT * FROM model_profiles ORDER BY known_as"
_SET: Final = """
    INSERT INTO model_profiles (known_as, name, model, created_at, options, presets, max_num_ctx,
        max_output_tokens, keep_alive_s, first_byte_s, chunk_gap_s, answer_s)
    VALUES (:known_as, :name, :model, :created_at, :options, :presets, :max_num_ctx,
        :max_output_tokens, :keep_alive_s, :first_byte_s, :chunk_gap_s, :answer_s)
    ON CONFLICT (known_as) DO UPDATE SET name = excluded.name, model = excluded.model,
        options = excluded.options, presets = excluded.presets, max_num_ctx = excluded.max_num_ctx,
        max_output_tokens = excluded.max_output_tokens, keep_alive_s = excluded.keep_alive_s,
        first_byte_s = excluded.first_byte_s, chunk_gap_s = excluded.chunk_gap_s, answer_s = excluded.answer_s
"""
_REMOVE: Final = "DELETE FROM model_profiles WHERE known_as = :known_as"
_LOCK: Final = "model_profiles"
_UNTOLD: Final = ("name", "known_as", "created_at")


class Profiles:
    """All raise StoreUnavailable when the database does not answer. Changes are noted as `actor`'s doing."""

    def __init__(self, database: Database, actor: Actor = NOBODY) -> None:
        self._database = database
        self._actor = actor

    async def all(self) -> dict[str, Profile]:
        """By canonical name, in its order."""
        async with self._database.session() as connection:
            return await _read(connection)

    async def set(self, profile: Profile) -> Profile | None:
        """Keep it in place of the one of this name, which is returned."""
        async with self._database.transaction(_LOCK) as connection:
            before = (await _read(connection)).get(profile.known_as)
            await connection.execute(_SET, _values_of(profile))
            if before != profile:
                await note(connection, self._actor, "set_model", None, _changes(before, profile))
        return before

    async def remove(self, known_as: str) -> Profile:
        """Forget the one of this canonical name, and return it. Raises NoSuchProfile."""
        async with self._database.transaction(_LOCK) as connection:
            profiles = await _read(connection)
            if known_as not in profiles:
                near = difflib.get_close_matches(known_as, profiles, n=1)
                raise NoSuchProfile(public(known_as), near=profiles[near[0]].name if near else None)
            await connection.execute(_REMOVE, {"known_as": known_as})
            await note(connection, self._actor, "remove_model", None, _changes(profiles[known_as], None))
        return profiles[known_as]


async def _read(connection: Session) -> dict[str, Profile]:
    profiles = [_profile(row) for row in await connection.fetch_all(_ALL)]
    return {profile.known_as: profile for profile in profiles}


def _changes(before: Profile | None, after: Profile | None) -> Changes:
    """What differs, and always the name: it says of which one."""
    was = {} if before is None else _values_of(before)
    now = {} if after is None else _values_of(after)
    told = {
        field: (was.get(field), now.get(field))
        for field in was | now
        if field not in _UNTOLD and was.get(field) != now.get(field)
    }
    return {"name": (was.get("name"), now.get("name")), **told}


def _values_of(profile: Profile) -> dict[str, Any]:
    return {
        "known_as": profile.known_as,
        "name": profile.name,
        "model": profile.model,
        "created_at": profile.created_at,
        "options": json.dumps(options_of(profile.fixed)),
        "presets": json.dumps(options_of(profile.presets)),
        "max_num_ctx": profile.max_num_ctx,
        "max_output_tokens": profile.max_output_tokens,
        "keep_alive_s": profile.keep_alive_s,
        **asdict(profile.timeouts),
    }


def _profile(row: Row) -> Profile:
    return Profile(
        name=row["name"],
        model=row["model"],
        created_at=row["created_at"],
        fixed=sampling_of(json.loads(row["options"])),
        presets=sampling_of(json.loads(row["presets"])),
        max_num_ctx=row["max_num_ctx"],
        max_output_tokens=row["max_output_tokens"],
        keep_alive_s=row["keep_alive_s"],
        timeouts=PhaseTimeouts(row["first_byte_s"], row["chunk_gap_s"], row["answer_s"]),
    )
