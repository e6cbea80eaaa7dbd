"""The prompt log's commands: shown to whoever has the secret, and noted; destroyed at once."""

import asyncio
import re
import sqlite3
from contextlib import closing

import orjson
import pytest

from gateway.config import load
from gateway.state.sealing import Sealer
from gateway.state.secret import load_secret
from gateway.storage.engines import database_at
from gateway.storage.keys import Keys
from gateway.storage.prompts import KeptKey, Prompts, SealedPrompt
from gateway.storage.sqlite.database import database_path
from tests.databases import ask
from tests.gateways import SECRET

SAID = {
    "operation": "chat",
    "model": "llama3",
    "prompt": [
        {"role": "system", "content": "Be kind"},
        {
            "role": "user",
            "content": "two\nlines \x1b[31mred",
            "attachments": [{"media_type": "image/png", "bytes": 72}],
        },
        {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": '{"a":1}'}]},
        {"role": "tool", "name": "f", "content": "done"},
    ],
    "turns_left_out": 3,
    "tools": ["f"],
    "answers": [{"content": "Hello", "thinking": "hm", "finish": "stop"}, {"content": "Hel", "finish": None}],
    "cut": True,
}


@pytest.fixture
def prefix(run) -> str:
    """The prefix of a key whose prompts are kept."""
    made: str = run.json("create-key", "--tenant", "acme", "--name", "ci", "--log-prompts", "7d")["prefix"]
    return made


def keep(prefix: str, request_id: str = "req_1", *, secret: bytes | None = None, said=SAID) -> None:
    """What a gateway would have kept of a request."""

    async def kept() -> None:
        settings = load()
        async with database_at(settings.database_url, connections=1) as database:
            key = await Keys(database).key_by_prefix(prefix)
            assert key is not None
            made = Sealer(secret or load_secret(settings)).new_key(key.account)
            wrapped = KeptKey(made.id, key.tenant.id, key.account, made.wrapped, 0.0, 700_000.0)
            text = made.seal(request_id, orjson.dumps(said))
            row = SealedPrompt(
                request_id, key.tenant.id, key.account, key.prompt_generation, made.id, 0.0, 604_800.0, text
            )
            assert await Prompts(database).write([row], [wrapped]) == 1

    asyncio.run(kept())


def test_what_was_said_is_shown_for_people(run, prefix):
    """Turn by turn; nothing in it is obeyed by the terminal."""
    keep(prefix)

    shown = run("show-prompts", "--prefix", prefix)

    assert (shown.exit_code, shown.stderr) == (0, "")
    head, *lines = shown.stdout.splitlines()
    assert re.fullmatch(
        rf"20.. UTC  req_1  {prefix} of acme  chat  llama3".replace("20..", "[-0-9: ]+"), head
    )
    assert lines == [
        "  [… 3 earlier turns left out]",
        "  system: Be kind",
        "  user: two",
        "    lines �[31mred",
        "  user: (image/png, 72 bytes, not kept)",
        '  assistant: (calls) f {"a":1}',
        "  tool (f): done",
        "  answer: (thinking) hm",
        "  answer: Hello",
        "  answer: Hel",
        "  [the answer was cut short]",
    ]


def test_what_was_said_is_shown_to_programs(run, prefix):
    keep(prefix)

    (shown,) = run.json("show-prompts", "--request-id", "req_1")

    assert {name: shown[name] for name in SAID} == SAID
    assert (shown["request_id"], shown["tenant"], shown["prefix"], shown["key_name"], shown["readable"]) == (
        "req_1",
        "acme",
        prefix,
        "ci",
        True,
    )


def test_an_answer_without_text_is_told_as_one(run, prefix):
    """Embeddings, or a backend that failed."""
    keep(prefix, said={**SAID, "answers": []})

    assert "[no answer in text]" in run("show-prompts", "--tenant", "acme").stdout


def test_showing_is_an_action_that_list_actions_tells(run, prefix):
    keep(prefix)
    run("show-prompts", "--prefix", prefix, "--reason", "ticket 4711")

    noted = run.json("list-actions")[-1]
    assert (noted["action"], noted["prefix"]) == ("show_prompts", prefix)
    assert noted["changes"]["reason"]["after"] == "ticket 4711"
    assert noted["changes"]["request_ids"]["after"] == ["req_1"]
    assert "show-prompts" in run("list-actions").stdout


def test_of_many_ids_an_action_shows_the_first(run, prefix):
    for number in range(12):
        keep(prefix, f"req_{number:02}")
    run("show-prompts", "--prefix", prefix)

    assert "req_02 and 2 more" in run("list-actions").stdout


def test_another_secret_shows_nothing(run, prefix, monkeypatch):
    """It is not the one that the keys were made under."""
    keep(prefix)
    monkeypatch.setenv("GATEWAY_SECRET", SECRET[::-1])

    refused = run("show-prompts", "--prefix", prefix)

    assert refused.exit_code == 1
    assert "under another secret" in refused.stderr
    assert "Be kind" not in refused.output


def test_what_was_altered_is_told_and_the_rest_is_shown(run, prefix):
    keep(prefix)
    keep(prefix, "req_2", secret=b"another secret of at least this length")

    shown = run("show-prompts", "--prefix", prefix)
    to_programs = run("show-prompts", "--prefix", prefix, "--json")

    assert (shown.exit_code, to_programs.exit_code) == (1, 1)
    assert "Be kind" in shown.stdout
    assert "it can't be opened" in shown.stdout
    assert "altered" in shown.stderr
    assert [one["readable"] for one in orjson.loads(to_programs.stdout)] == [True, False]


def test_where_nothing_is_kept_it_says_why(run, prefix):
    assert "--log-prompts only" in run("show-prompts", "--prefix", prefix).stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("show-prompts",),
        ("purge-prompts", "--yes"),
        ("purge-prompts", "--prefix", "nz_abc12345", "--tenant", "acme", "--yes"),
        ("purge-prompts", "--tenant", "acme", "--json"),
        ("create-key", "--tenant", "acme", "--name", "x", "--log-prompts", "10s"),
        ("create-key", "--tenant", "acme", "--name", "x", "--log-prompts", "400d"),
        ("create-key", "--tenant", "acme", "--name", "x", "--log-prompts", "yes"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_told(run, arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize("command", ["show-prompts", "purge-prompts"])
def test_a_key_of_another_tenant_is_none(run, prefix, command):
    run("create-tenant", "--name", "other")
    yes = ("--yes",) if command == "purge-prompts" else ("--tenant", "other")

    refused = run(command, "--prefix", "nz_00000000" if command == "purge-prompts" else prefix, *yes)

    assert refused.exit_code == 1
    assert "no key with the prefix" in refused.stderr


def test_a_purge_asks_first_and_tells_what_it_destroyed(run, prefix):
    keep(prefix)

    asked = run("purge-prompts", "--prefix", prefix)
    assert asked.exit_code == 1
    assert f"Destroy 1 prompt of the key 'ci' ({prefix}) of the tenant 'acme' for good?" in asked.stdout

    purged = run("purge-prompts", "--prefix", prefix, "--yes")
    assert purged.stdout.splitlines() == [
        f"Destroyed 1 prompt of the key 'ci' ({prefix}) of the tenant 'acme', and 1 data key.",
        "What it asks from now on is kept as before: `update-key --log-prompts off` ends that.",
    ]
    assert run.json("show-prompts", "--prefix", prefix) == []
    assert ask(load().database_url, "SELECT * FROM prompt_keys") == []


DESTROYING = [
    ("purge-prompts", "--tenant", "acme", "--yes", "--json"),
    ("delete-tenant", "--name", "acme", "--yes", "--json"),
    ("purge-tenant", "--name", "acme", "--yes", "--json"),
]


@pytest.mark.parametrize("command", DESTROYING, ids=lambda command: command[0])
def test_what_destroys_prompts_leaves_no_rows_and_no_data_keys(run, prefix, command):
    keep(prefix)
    keep(prefix, "req_2")

    done = run(*command)

    assert (done.exit_code, done.stderr) == (0, "")
    assert ask(load().database_url, "SELECT * FROM prompts") == []
    assert ask(load().database_url, "SELECT * FROM prompt_keys") == []


@pytest.mark.parametrize("run", ["sqlite"], indirect=True)
@pytest.mark.parametrize("command", DESTROYING, ids=lambda command: command[0])
def test_what_destroys_prompts_empties_sqlites_write_ahead_log(run, prefix, command):
    keep(prefix)
    database = database_path(load().database_url)
    # One that has it open keeps SQLite from removing the log as the command ends.
    with closing(sqlite3.connect(database)) as other:
        other.execute("SELECT count(*) FROM prompts").fetchall()
        run(*command)

        assert database.with_name(f"{database.name}-wal").read_bytes() == b""


@pytest.mark.parametrize("run", ["sqlite"], indirect=True)
@pytest.mark.parametrize("command", DESTROYING, ids=lambda command: command[0])
def test_where_the_write_ahead_log_still_has_what_was_destroyed_it_is_told(run, prefix, command):
    """Somebody reads what was there before."""
    keep(prefix)
    with closing(sqlite3.connect(database_path(load().database_url), isolation_level=None)) as reader:
        reader.execute("BEGIN").execute("SELECT count(*) FROM prompts").fetchall()

        done = run(*command)

    assert done.exit_code == 0
    assert "SQLite's write-ahead log has what was destroyed" in done.stderr


def test_a_tenants_purge_to_programs(run, prefix):
    keep(prefix)
    keep(prefix, "req_2")

    assert run.json("purge-prompts", "--tenant", "acme", "--yes") == {
        "tenant": "acme",
        "prefix": None,
        "prompts": 2,
        "data_keys": 2,
    }
    assert (
        "Destroyed 0 prompts of the tenant 'acme'" in run("purge-prompts", "--tenant", "acme", "--yes").stdout
    )


def test_everybody_sees_that_prompts_are_kept(run, prefix):
    run("create-key", "--tenant", "acme", "--name", "quiet")

    assert run.json("show-key", "--prefix", prefix)["log_prompts_s"] == 604_800
    assert re.search(r"Prompts +kept for 7d", run("show-key", "--prefix", prefix).stdout)
    listed = run("list-keys").stdout
    assert "kept for 7d" in listed
    assert "not kept" in listed


def test_making_a_key_says_that_its_users_should_know(run):
    made = run("create-key", "--tenant", "acme", "--name", "x", "--log-prompts", "90m")

    assert "kept, encrypted, for 90m: tell its users" in made.stdout


def test_keeping_is_changed_and_told(run, prefix):
    changed = run("update-key", "--prefix", prefix, "--log-prompts", "12h")
    assert "prompts: kept for 12h, was kept for 7d" in changed.stdout

    to_programs = run.json("update-key", "--prefix", prefix, "--log-prompts", "off")
    assert to_programs["changed"] == {"log_prompts_s": {"before": 43_200, "after": None}}
    assert "Prompts" not in run("list-keys").stdout.splitlines()[0]


def test_a_shorter_time_holds_for_what_is_kept_already(run, prefix):
    keep(prefix)

    run("update-key", "--prefix", prefix, "--log-prompts", "1h")

    (row,) = ask(load().database_url, "SELECT expires_at - logged_at AS lives_s FROM prompts")
    assert row["lives_s"] == pytest.approx(3600)


def test_the_secret_of_the_environment_opens_it(run, monkeypatch):
    """As in a fleet, whose commands run anywhere."""
    monkeypatch.setenv("GATEWAY_SECRET", SECRET)
    made = run.json("create-key", "--tenant", "acme", "--name", "y", "--log-prompts", "1d")["prefix"]
    keep(made, secret=SECRET.encode())

    assert run.json("show-prompts", "--prefix", made)[0]["readable"]
