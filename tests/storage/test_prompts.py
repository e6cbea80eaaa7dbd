"""Prompts in the database: only what may be kept now comes in, and what is destroyed does not come back."""

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from attrs import evolve

from gateway.model import Key, Tenant
from gateway.rules.audit_chain import Chain
from gateway.storage.actions import Actions, Actor
from gateway.storage.audit_purging import AuditPurging
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys, Proof
from gateway.storage.prompts import (
    KEY_S,
    Destroyed,
    KeptKey,
    Prompts,
    PromptSelection,
    SealedPrompt,
    scrub,
)
from gateway.storage.tenants import Tenants
from tests.databases import ask
from tests.storage.samples import ACME, key

EVE = Actor("eve", "ops-1")
WEEK_S = 7 * 86_400
ALL = PromptSelection(0.0, 100)
LOGGED = key(1, log_prompts_s=WEEK_S)


@pytest.fixture
async def tenants(database) -> Tenants:
    tenants = Tenants(database, EVE)
    await tenants.add(ACME)
    return tenants


@pytest.fixture
async def keys(database, tenants) -> Keys:
    keys = Keys(database, EVE)
    await keys.add(LOGGED)
    return keys


@pytest.fixture
async def prompts(database, keys) -> Prompts:
    return Prompts(database, EVE)


def sealed(request_id: str = "r1", **changes: Any) -> SealedPrompt:
    prompt = SealedPrompt(
        request_id, "t1", "k1", 0, "d1", 0.0, float(WEEK_S), b"\x01sealed-" + request_id.encode()
    )
    return evolve(prompt, **changes)


def data_key(key_id: str = "d1", **changes: Any) -> KeptKey:
    return evolve(
        KeptKey(key_id, "t1", "k1", b"\x01wrapped-" + key_id.encode(), 0.0, WEEK_S + KEY_S), **changes
    )


async def cleared(prompts: Prompts) -> int:
    """Delete what nobody can open any more, as the commands do."""
    return sum([count async for count in prompts.clear()])


async def ids(prompts: Prompts) -> list[str]:
    return [found.request_id for found in await prompts.show(ALL, None, {})]


async def test_what_is_written_is_found_with_what_opens_it(prompts: Prompts):
    """Its time runs from when it was said, by the database's clock."""
    assert await prompts.write([sealed(age_s=30.0)], [data_key()]) == 1

    (found,) = await prompts.show(ALL, None, {})
    assert (found.request_id, found.tenant_id, found.account_id) == ("r1", "t1", "k1")
    assert (found.sealed, found.wrapped) == (b"\x01sealed-r1", b"\x01wrapped-d1")
    assert found.expires_at - found.logged_at == pytest.approx(WEEK_S)


async def test_writing_again_changes_nothing(prompts: Prompts):
    """Also with a data key that is there already: what became of a batch may not have been known."""
    await prompts.write([sealed()], [data_key()])
    await prompts.write([sealed(sealed=b"other"), sealed("r2")], [data_key(wrapped=b"other")])

    found = await prompts.show(ALL, None, {})
    assert [one.sealed for one in found] == [b"\x01sealed-r1", b"\x01sealed-r2"]
    assert {one.wrapped for one in found} == {b"\x01wrapped-d1"}


@pytest.mark.parametrize("how", ["off", "purged", "deleted"])
async def test_what_comes_late_does_not_come_back(prompts: Prompts, keys: Keys, tenants: Tenants, how: str):
    """A gateway had it in memory, while its key was told to keep none, purged, or deleted with its tenant."""
    match how:
        case "off":
            await keys.update(LOGGED.prefix, log_prompts_s=None)
        case "purged":
            await prompts.purge(LOGGED)
        case "deleted":
            await tenants.delete("acme")

    assert await prompts.write([sealed()], [data_key()]) == 0

    assert await prompts.count(LOGGED) == Destroyed(0, 0)


async def test_after_a_purge_the_new_generation_is_kept(prompts: Prompts, keys: Keys):
    await prompts.purge(LOGGED)
    renewed = await keys.key_by_prefix(LOGGED.prefix)
    assert renewed is not None
    assert renewed.prompt_generation == 1

    assert await prompts.write([sealed(generation=1)], [data_key()]) == 1


async def test_every_change_that_matters_raises_the_revision(prompts: Prompts, keys: Keys):
    """By it running gateways know: within a second they keep, or keep no more."""
    before = await keys.revision()
    await keys.update(LOGGED.prefix, log_prompts_s=60)
    changed = await keys.revision()
    await prompts.purge(LOGGED)

    assert before < changed < await keys.revision()


@pytest.mark.parametrize("whose", [LOGGED, ACME], ids=["key", "tenant"])
async def test_a_purge_destroys_rows_and_data_keys_and_is_noted(
    database, prompts: Prompts, keys: Keys, whose: Key | Tenant
):
    other = Tenant("t2", "other", 1.0)
    await Tenants(database).add(other)
    await keys.add(key(2, tenant=other, log_prompts_s=60))
    await prompts.write([sealed("r1"), sealed("r2", prompt_key_id="d2")], [data_key(), data_key("d2")])
    theirs = sealed("r3", tenant_id="t2", account_id="k2", prompt_key_id="d3")
    await prompts.write([theirs], [data_key("d3", tenant_id="t2", account_id="k2")])

    assert await prompts.count(whose) == Destroyed(2, 2)
    assert await prompts.purge(whose) == Destroyed(2, 2)
    assert await cleared(prompts) == 4

    assert await ids(prompts) == ["r3"]
    noted = (await Actions(database).latest(since=0, limit=10))[-2]
    assert (noted.actor, noted.action, noted.tenant) == (EVE, "purge_prompts", "acme")
    assert noted.changes == {
        "prompts": {"before": 2, "after": 0},
        "data_keys": {"before": 2, "after": 0},
    }


async def test_a_purge_is_for_the_whole_line_of_rotated_keys(prompts: Prompts, keys: Keys):
    """They are one account; also what the old key still asks is then of another generation."""
    await prompts.write([sealed()], [data_key()])
    successor = key(2)
    proof = Proof("k2", successor.prefix, successor.mac, successor.argon2)
    rotated = await keys.rotate(LOGGED.prefix, proof, grace_s=60, expires=None)
    assert rotated.new.log_prompts_s == WEEK_S

    assert (await prompts.purge(rotated.new)).prompts == 1
    await cleared(prompts)

    assert await prompts.write([sealed("r2")], [data_key("d2")]) == 0
    assert [one.prompt_generation for one in await keys.all()] == [1, 1]


async def test_whether_prompts_are_kept_is_one_setting_for_the_whole_line(keys: Keys):
    successor = key(2)
    proof = Proof("k2", successor.prefix, successor.mac, successor.argon2)
    await keys.rotate(LOGGED.prefix, proof, grace_s=60, expires=None)

    await keys.update(successor.prefix, log_prompts_s=None)

    assert [one.log_prompts_s for one in await keys.all()] == [None, None]


async def test_what_is_over_is_deleted_with_its_data_key(database_url: str, prompts: Prompts):
    await prompts.write([sealed("r1"), sealed("r2", prompt_key_id="d2")], [data_key(), data_key("d2")])
    ask(database_url, "UPDATE prompts SET expires_at = 1 WHERE request_id = 'r1'")
    ask(database_url, "UPDATE prompt_keys SET expires_at = 1 WHERE id = 'd1'")
    assert await prompts.overdue(600) == 1

    assert await prompts.expire() == 2

    assert await prompts.count(LOGGED) == Destroyed(1, 1)
    assert await prompts.expire() == 0
    assert await prompts.overdue(600) == 0


async def test_a_data_key_takes_what_it_sealed_with_it(database_url: str, prompts: Prompts):
    """Whoever destroys one by hand leaves nothing that nobody can open."""
    await prompts.write([sealed()], [data_key()])
    ask(database_url, "UPDATE prompt_keys SET expires_at = 1")

    await prompts.expire()

    assert ask(database_url, "SELECT * FROM prompts") == []


async def test_a_purge_destroys_the_data_keys_and_leaves_the_rows_to_what_is_cleared_by_pages(
    database_url: str, prompts: Prompts
):
    """In one short transaction, however many there are: nobody can open one of them from then on."""
    await prompts.write([sealed(f"r{number}") for number in range(450)], [data_key()])

    assert await prompts.purge(LOGGED) == Destroyed(450, 1)

    assert len(ask(database_url, "SELECT request_id FROM prompts")) == 450
    assert [bytes(row["wrapped"]) for row in ask(database_url, "SELECT wrapped FROM prompt_keys")] == [b""]
    assert await ids(prompts) == []
    pages = [count async for count in prompts.clear()]
    assert max(pages) <= 200
    assert sum(pages) == 451
    assert await prompts.count(LOGGED) == Destroyed(0, 0)


async def test_a_purge_that_was_cut_short_is_finished_by_any_gateway(database_url: str, prompts: Prompts):
    await prompts.write([sealed(f"r{number}") for number in range(450)], [data_key()])
    await prompts.purge(LOGGED)
    pages = prompts.clear()
    await anext(pages)

    assert await prompts.expire() == 251

    assert ask(database_url, "SELECT * FROM prompts") == []
    assert ask(database_url, "SELECT * FROM prompt_keys") == []


async def test_what_is_destroyed_is_counted_once(prompts: Prompts):
    """A data key that is destroyed is none; its rows are there until they are deleted."""
    await prompts.write([sealed()], [data_key()])
    await prompts.purge(LOGGED)

    assert await prompts.count(LOGGED) == Destroyed(1, 0)


async def test_more_than_a_page_is_deleted_at_once(database_url: str, prompts: Prompts):
    await prompts.write([sealed(f"r{number}") for number in range(450)], [data_key()])
    ask(database_url, "UPDATE prompts SET expires_at = 1")

    assert await prompts.expire() == 450


async def test_what_is_over_is_not_shown_even_before_it_is_deleted(database_url: str, prompts: Prompts):
    await prompts.write([sealed()], [data_key()])
    ask(database_url, "UPDATE prompts SET expires_at = 1")

    assert await ids(prompts) == []


async def test_a_shorter_time_holds_for_what_is_kept_already(prompts: Prompts, keys: Keys):
    """And for what still comes under the longer one; a longer one does not."""
    await prompts.write([sealed("r1")], [data_key()])
    _, shorter = await keys.update(LOGGED.prefix, log_prompts_s=3600)
    assert sum([count async for count in prompts.shorten(shorter)]) == 1
    await prompts.write([sealed("r2")], [data_key()])
    await keys.update(LOGGED.prefix, log_prompts_s=2 * WEEK_S)

    found = await prompts.show(ALL, None, {})
    assert [round(one.expires_at - one.logged_at) for one in found] == [3600, 3600]


async def test_a_shorter_time_ends_data_keys_at_once_and_rows_by_pages(
    database_url: str, prompts: Prompts, keys: Keys
):
    """What its data key does not open is not read, and goes with it, also where the rows were not got to."""
    rows = [sealed(f"r{number}", age_s=7200.0) for number in range(450)]
    await prompts.write(rows, [data_key(age_s=7200.0)])

    await keys.update(LOGGED.prefix, log_prompts_s=3600)

    assert await ids(prompts) == []
    assert await prompts.expire() == 451
    assert ask(database_url, "SELECT * FROM prompts") == []


async def test_rows_are_shortened_by_pages_whatever_their_times(
    database_url: str, prompts: Prompts, keys: Keys
):
    """Also many of one moment; and of this account only."""
    await keys.add(key(2, log_prompts_s=WEEK_S))
    await prompts.write([sealed(f"r{number:03}") for number in range(250)], [data_key()])
    await prompts.write([sealed(f"r{number}", age_s=60.0) for number in range(250, 450)], [data_key()])
    other = sealed("other", account_id="k2", prompt_key_id="d2")
    await prompts.write([other], [data_key("d2", account_id="k2")])
    _, shorter = await keys.update(LOGGED.prefix, log_prompts_s=3600)

    assert sum([count async for count in prompts.shorten(shorter)]) == 450

    left = ask(database_url, "SELECT request_id FROM prompts WHERE expires_at > logged_at + 3601")
    assert [row["request_id"] for row in left] == ["other"]


async def test_shortening_ends_where_another_time_was_set_meanwhile(prompts: Prompts, keys: Keys):
    await prompts.write([sealed()], [data_key()])
    _, shorter = await keys.update(LOGGED.prefix, log_prompts_s=3600)
    await keys.update(LOGGED.prefix, log_prompts_s=2 * WEEK_S)

    assert [count async for count in prompts.shorten(shorter)] == []


async def test_a_data_key_that_comes_late_lives_no_longer_than_is_kept_now(
    database_url: str, prompts: Prompts, keys: Keys
):
    """The time was shortened while its batch waited in a gateway's memory."""
    await keys.update(LOGGED.prefix, log_prompts_s=3600)
    await prompts.write([sealed()], [data_key()])

    (row,) = ask(database_url, "SELECT expires_at - made_at AS lives_s FROM prompt_keys")
    assert row["lives_s"] == pytest.approx(3600 + KEY_S)


async def test_showing_is_noted_with_why_and_which(database, prompts: Prompts):
    await prompts.write([sealed("r1"), sealed("r2")], [data_key()])

    await prompts.show(PromptSelection(0.0, 1, "t1", "k1"), LOGGED, {"reason": "a ticket", "since": None})

    (noted,) = await Actions(database).latest(since=0, limit=1)
    assert (noted.action, noted.key_prefix, noted.actor) == ("show_prompts", LOGGED.prefix, EVE)
    assert noted.changes == {
        "reason": {"before": None, "after": "a ticket"},
        "shown": {"before": None, "after": 1},
        "request_ids": {"before": None, "after": ["r2"]},
    }


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (PromptSelection(0.0, 100, tenant_id="t1"), ["r1", "r2"]),
        (PromptSelection(0.0, 100, tenant_id="t2"), []),
        (PromptSelection(0.0, 100, account_id="k1"), ["r1", "r2"]),
        (PromptSelection(0.0, 100, request_id="r2"), ["r2"]),
        (PromptSelection(0.0, 1), ["r2"]),
        (PromptSelection(4e9, 100), []),
    ],
    ids=["tenant", "other tenant", "account", "request", "limit", "since"],
)
async def test_a_selection_finds_what_it_says(prompts: Prompts, selection: PromptSelection, expected):
    await prompts.write([sealed("r1", age_s=60.0), sealed("r2")], [data_key()])

    assert [one.request_id for one in await prompts.show(selection, None, {})] == expected


async def test_deleting_or_purging_a_tenant_destroys_its_prompts(
    database, prompts: Prompts, tenants: Tenants
):
    await prompts.write([sealed("r1")], [data_key()])
    removed = (await AuditPurging(database, EVE).begin(ACME, Chain(b"s" * 32))).found
    assert removed.prompts == 1
    assert await ids(prompts) == []
    await cleared(prompts)
    await prompts.write([sealed("r2", generation=1)], [data_key()])

    await tenants.delete("acme")

    await cleared(prompts)
    assert await prompts.count(ACME) == Destroyed(0, 0)
    (noted,) = await Actions(database).latest(since=0, limit=1)
    assert noted.changes["prompts"] == {"before": 1, "after": 0}


async def test_keys_that_log_are_counted(prompts: Prompts, keys: Keys):
    await keys.add(key(2))
    assert await prompts.logging() == 1
    await keys.revoke(LOGGED.prefix, 1.0)
    assert await prompts.logging() == 0


async def test_nothing_of_what_was_purged_is_left_in_sqlites_files(sqlite_url: str, tmp_path):
    """Neither in its free pages, nor in its write-ahead log."""

    def on_disk() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.glob("gateway.db*"))

    async with database_at(sqlite_url) as database:
        await Tenants(database).add(ACME)
        await Keys(database).add(LOGGED)
        prompts = Prompts(database)
        large = [sealed(f"r{number}", sealed=b"CIPHERTEXT" * 2000) for number in range(20)]
        await prompts.write([*large, sealed("small", sealed=b"CIPHERTEXT")], [data_key(wrapped=b"WRAPPED")])
        assert b"CIPHERTEXT" in on_disk()
        assert b"WRAPPED" in on_disk()

        await prompts.purge(LOGGED)
        assert b"WRAPPED" not in on_disk()
        await cleared(prompts)
        assert await scrub(database)

        assert b"CIPHERTEXT" not in on_disk()


async def test_a_reader_delays_the_scrubbing_and_any_gateway_makes_up_for_it(sqlite_url: str, tmp_path):
    """Somebody read what was there before, so that the log could not be emptied when it was destroyed."""
    log = tmp_path / "gateway.db-wal"
    async with database_at(sqlite_url) as database:
        await Tenants(database).add(ACME)
        await Keys(database).add(LOGGED)
        prompts = Prompts(database)
        await prompts.write([sealed(sealed=b"CIPHERTEXT")], [data_key()])
        with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as reader:
            reader.execute("BEGIN").execute("SELECT count(*) FROM prompts").fetchall()
            await prompts.purge(LOGGED)
            await cleared(prompts)
            assert not await scrub(database)
            assert b"CIPHERTEXT" in log.read_bytes()

        assert await Prompts(database).expire() == 0

        assert log.read_bytes() == b""
