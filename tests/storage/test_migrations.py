"""Migrating: alone, atomically, and whatever happened to the process before; on either engine."""

import os
import signal
import subprocess
import sys
from importlib import resources

import pytest

from gateway.postgres_address import is_postgres
from gateway.storage import migrations
from gateway.storage.migrations import known, migrate, migrator_of, pending, refuse_pending
from gateway.storage.refusals import DatabaseUnusable
from gateway.storage.sqlite.database import make_database_file
from tests.databases import ask
from tests.storage.conftest import ENGINES
from tests.storage.schemas import columns_of, indexes_of, names_of

ALL = [
    "0001_tenants",
    "0002_keys",
    "0003_revision",
    "0004_audit",
    "0005_meta",
    "0006_policies",
    "0007_ledger",
    "0008_replicas",
    "0009_weights",
    "0010_queue_time",
    "0011_model_profiles",
    "0012_model_access",
    "0013_key_life",
    "0014_admin_actions",
    "0015_usage",
    "0018_drained_backends",
    "0019_audit_retention",
    "0020_audit_kept",
    "0021_audit_seals",
    "0025_prompt_log",
    "0030_audit_guarded",
]

MIGRATE = """
import os, signal, sys
from gateway.storage import migrations
from gateway.storage.atomic_backend import AtomicBackend
from yoyo import internalmigrations

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

{sabotage}
print(migrations.migrate(sys.argv[1]))
"""
# Where a kill -9 strikes.
SABOTAGES = {
    "before anything": "migrations._apply_pending = die",
    "holding yoyo's lock": "internalmigrations.upgrade = die",
    "between a step and its mark": "AtomicBackend.mark_one = die",
    "before the commit": "AtomicBackend.commit = die",
    "after three steps": (
        "steps = AtomicBackend.apply_atomically\n"
        "AtomicBackend.apply_atomically = lambda self, one: die() if one.id > '0004' else steps(self, one)"
    ),
}


def start(database_url: str, sabotage: str = "", **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", MIGRATE.format(sabotage=sabotage), database_url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


@pytest.fixture
def new_sqlite_url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/data/gateway.db"


@pytest.fixture(params=ENGINES)
def new_url(request) -> str:
    name = "empty_postgres_url" if request.param == "postgres" else "new_sqlite_url"
    return str(request.getfixturevalue(name))


def test_a_new_database_gets_all_migrations_and_then_none(new_url):
    """`migrate` is safe to repeat, and tells what it did."""
    assert pending(new_url) == ALL
    assert migrate(new_url) == ALL
    assert migrate(new_url) == []
    assert pending(new_url) == []


def test_looking_at_what_is_pending_makes_nothing(new_url, tmp_path):
    """A command that only looks leaves nothing behind: no file, no table."""
    pending(new_url)

    assert list(tmp_path.iterdir()) == []
    if is_postgres(new_url):
        assert names_of(new_url) == set()


def test_every_migration_has_a_rollback_that_undoes_it(new_url):
    """Rolled back to the first, nothing is left; applied again, all is there as before."""
    migrate(new_url)
    before = names_of(new_url), columns_of(new_url), indexes_of(new_url)
    migrator = migrator_of(new_url)

    with migrator.backend() as backend:
        for migration in backend.to_rollback(known(migrator)):
            with backend.transaction():
                migration.process_steps(backend, "rollback")
                backend.unmark_one(migration)
    empty = names_of(new_url)
    migrate(new_url)

    assert empty == set()
    assert (names_of(new_url), columns_of(new_url), indexes_of(new_url)) == before
    folder = resources.files("gateway.migrations") / migrator.folder
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        name for one in ALL for name in (f"{one}.sql", f"{one}.rollback.sql")
    )


def test_both_engines_have_the_same_schema(new_sqlite_url, empty_postgres_url):
    """Tables, columns, types, keys and indexes. SQLite's tables are STRICT, as Postgres' are."""
    for url in (new_sqlite_url, empty_postgres_url):
        migrate(url)
    strict = ask(new_sqlite_url, "SELECT name FROM pragma_table_list WHERE schema = 'main' AND strict")
    tables = columns_of(new_sqlite_url)
    booleans = {
        (table, column)
        for table, columns in columns_of(empty_postgres_url).items()
        for column, (kind, _) in columns.items()
        if kind == "BOOLEAN"
    }
    for table, column in booleans:
        tables[table][column] = ("BOOLEAN", tables[table][column][1])

    assert sorted(tables) == sorted(row["name"] for row in strict)
    assert tables == columns_of(empty_postgres_url)
    assert {table: list(columns) for table, columns in tables.items()} == {
        table: list(columns) for table, columns in columns_of(empty_postgres_url).items()
    }
    # In SQLite a whole number as primary key is the place of the row, without an index.
    assert indexes_of(new_sqlite_url) == indexes_of(empty_postgres_url) - {
        ("revision", "only_row", True, False),
        ("audit_heads", "day", True, False),
    }
    assert booleans == {
        ("audit", "stream"), ("audit", "tokens_estimated"), ("ledger", "estimated"),
    }  # fmt: skip


def test_processes_that_migrate_at_once_all_end_well(new_url):
    """One applies, the others find nothing to do."""
    processes = [start(new_url) for _ in range(4)]
    outputs = sorted(process.communicate(timeout=60)[0].strip() for process in processes)

    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    assert outputs == sorted([str(ALL), "[]", "[]", "[]"])


@pytest.mark.parametrize("point", SABOTAGES)
def test_a_killed_migration_does_not_block_the_next(point, new_url):
    """kill -9 leaves no lock, no half-applied step, and no applied step that is not remembered."""
    killed = start(new_url, SABOTAGES[point])
    killed.communicate(timeout=60)

    migrate(new_url)

    assert killed.returncode == -signal.SIGKILL
    assert pending(new_url) == []
    assert len(columns_of(new_url)) == 18


def test_a_process_that_migrates_for_ever_is_not_waited_for_for_ever(new_url):
    """After `lock_s` there is a sentence instead of a start that hangs."""
    migrator = migrator_of(new_url)
    migrator.make()

    with (
        migrations._alone(migrator, lock_s=1),
        pytest.raises(DatabaseUnusable, match="Another process has been migrating"),
    ):
        migrate(new_url, lock_s=0)


def test_a_newer_database_is_refused(new_url):
    """An older gateway must not write into what it does not know."""
    migrate(new_url)
    ask(
        new_url,
        "UPDATE _yoyo_migration SET migration_id = '9999_flying' WHERE migration_id = '0005_meta'",
    )

    for refused in (migrate, pending, refuse_pending):
        with pytest.raises(
            DatabaseUnusable, match=r"made by a newer version of this gateway: it has 9999_flying"
        ):
            refused(new_url)


def test_commands_say_what_to_run_first(new_url):
    """No database, or one that lacks a step: the sentence names the command."""
    if not is_postgres(new_url):
        with pytest.raises(
            DatabaseUnusable, match=r"no database at .* yet: run `neuronetz-gateway migrate` first"
        ):
            refuse_pending(new_url)

    migrator_of(new_url).make()
    with pytest.raises(DatabaseUnusable, match=r"lacks 0001_tenants.* run `neuronetz-gateway migrate` first"):
        refuse_pending(new_url)

    migrate(new_url)
    refuse_pending(new_url)


def test_a_user_without_a_name_can_migrate(new_url, monkeypatch):
    """Containers run under any uid; getpass raises KeyError for those without a passwd entry."""

    def fail() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", fail)

    assert migrate(new_url) == ALL


def test_a_file_that_is_no_database_is_told(new_sqlite_url):
    """A sentence, no traceback of the driver."""
    make_database_file(new_sqlite_url).write_bytes(b"this is not a database at all" * 100)

    with pytest.raises(DatabaseUnusable, match="can't be used: file is not a database"):
        migrate(new_sqlite_url)
