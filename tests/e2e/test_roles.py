"""A gateway whose database role can add to the audit log, and can't change it; commands have another role."""

import json
from collections.abc import Iterator

import psycopg
import pytest

from gateway.storage.engines import audit_days, database_at, grant_serving, grant_serving_again
from gateway.storage.postgres.roles import RIGHTS
from tests.databases import ask
from tests.engines import wait_until
from tests.gateways import SECRET, Gateway

ROLE = "gateway_serving"


@pytest.fixture
def serving_url(postgres_server, postgres_url) -> str:
    """The same database by a role that owns nothing, as an operator makes it."""
    if not postgres_server.ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{ROLE}'"):
        postgres_server.ask(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{postgres_server.password}'")
    return str(postgres_url).replace("//gateway:", f"//{ROLE}:")


@pytest.fixture
def gateway(tmp_path, serving_url, postgres_url, engine_greeting) -> Iterator[Gateway]:
    one = Gateway(
        tmp_path,
        OLLAMA_BACKENDS=f"words={engine_greeting.url};kind=openai",
        DATABASE_URL=serving_url,
        DATABASE_ADMIN_URL=postgres_url,
        GATEWAY_SECRET=SECRET,
        GATEWAY_AUDIT_RETENTION_DAYS="30",
    )
    granted = one.json("migrate", "--grant-to", ROLE)
    assert granted["granted_to"] == ROLE
    one.make_first_key()
    try:
        yield one.start()
    finally:
        one.stop()


UNDOING = (
    "UPDATE audit SET status = 200",
    "DELETE FROM audit",
    "TRUNCATE audit",
    "DROP TABLE audit",
    "ALTER TABLE audit DISABLE TRIGGER ALL",
    "UPDATE audit_seals SET ids = ''",
    "DELETE FROM audit_seals",
    "INSERT INTO audit_removals VALUES ('days', '', 99999, 0, '')",
    "DELETE FROM admin_actions",
    "UPDATE tenants SET rpm = NULL",
    "UPDATE keys SET revoked_at = NULL",
    "DELETE FROM ledger",
)


def test_the_role_that_serves_can_not_undo_what_is_written(serving_url, postgres_url):
    """Nor let in whom an operator has shut out."""
    grant_serving(postgres_url, ROLE)

    for statement in UNDOING:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            ask(serving_url, statement)


# Its own tables in the place of those that are meant, with what is to run with the owner's rights.
SHADOWING = """
    CREATE TEMP TABLE audit_other (LIKE public.audit);
    CREATE TEMP TABLE meta (name text, value text);
    INSERT INTO audit_other SELECT * FROM public.audit;
    UPDATE audit_other SET request_id = 'req_01fa0c1f2a30' || repeat('0', 20);
    CREATE FUNCTION pg_temp.undo() RETURNS trigger LANGUAGE plpgsql
    AS $$ BEGIN DELETE FROM public.audit; RETURN NULL; END $$;
    CREATE TRIGGER undo BEFORE DELETE ON audit_other FOR EACH STATEMENT EXECUTE FUNCTION pg_temp.undo();
    GRANT ALL ON audit_other, meta TO PUBLIC;
    SELECT public.make_audit_days()
"""
WRITTEN = (
    "INSERT INTO audit (request_id, received_at_us, peer, method, path, surface, stream, status, outcome,"
    " tokens_estimated, duration_ms, bytes_in, bytes_out, recorded_at) VALUES"
    " ('r1', 0, '', 'GET', '/', 'ollama', FALSE, 200, 'served', FALSE, 1, 0, 0, 5)"
)


def test_the_role_that_serves_can_not_make_days_do_what_it_wants(serving_url, postgres_url):
    """The one function that runs with the owner's rights uses its owner's tables alone."""
    grant_serving(postgres_url, ROLE)
    ask(serving_url, WRITTEN)

    ask(serving_url, SHADOWING)

    assert ask(postgres_url, "SELECT request_id FROM audit") == [{"request_id": "r1"}]
    told = ask(postgres_url, "SELECT proname::text AS name, proconfig FROM pg_proc WHERE prosecdef")
    assert [one["name"] for one in told] == ["make_audit_days"]
    assert "search_path=public, pg_temp" in told[0]["proconfig"]


def test_rights_are_given_again_to_nobody_whom_the_serving_role_names(
    postgres_server, serving_url, postgres_url
):
    """It may write the name where it is kept; believed is what the owner did."""
    other = "somebody_else"
    if not postgres_server.ask(f"SELECT 1 FROM pg_roles WHERE rolname = '{other}'"):
        postgres_server.ask(f"CREATE ROLE {other}")
    grant_serving(postgres_url, ROLE)
    may = f"SELECT has_table_privilege('{other}', 'tenants', 'SELECT') AS may"
    ask(serving_url, f"UPDATE meta SET value = '{other}' WHERE name = 'serving_role'")

    grant_serving_again(postgres_url)
    named = ask(postgres_url, may)
    ask(serving_url, f"UPDATE meta SET value = '{ROLE}' WHERE name = 'serving_role'")
    ask(postgres_url, f"REVOKE ALL ON tenants FROM {ROLE}")
    grant_serving_again(postgres_url)

    assert named == [{"may": False}]
    assert ask(serving_url, "SELECT count(*) AS n FROM tenants") == [{"n": 0}]


async def test_default_rights_on_new_tables_give_none_on_a_day(serving_url, postgres_url):
    """As operators set them for all of a schema: days to come are made in it for years."""
    grant_serving(postgres_url, ROLE)
    ask(postgres_url, f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {ROLE}")
    day = ask(
        postgres_url,
        "SELECT max(inhrelid::regclass::text) AS day FROM pg_inherits"
        " WHERE inhparent = 'audit'::regclass AND inhrelid::regclass::text ~ '[0-9]'",
    )[0]["day"]
    ask(postgres_url, f"DROP TABLE {day}")

    ask(serving_url, "SELECT make_audit_days()")

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        ask(serving_url, f"DELETE FROM {day}")
    async with database_at(serving_url) as database:
        days = audit_days(serving_url, database)
        before = await days.may_change()
        ask(postgres_url, f"GRANT DELETE ON {day} TO {ROLE}")
        assert (before, await days.may_change()) == (False, True)


def test_all_that_serving_needs_is_granted_and_nothing_is_refused(gateway, serving_url):
    """Requests, refusals, settlements, usage, last uses, days to come: as with one role."""
    with gateway.client() as client:
        body = {"model": "greeting", "messages": [{"role": "user", "content": "Hi"}]}
        answers = [client.post("/v1/chat/completions", json=body) for _ in range(3)]
        refused = client.get("/v1/models", headers={"Authorization": "Bearer nz_wrong"})
    assert [answer.status_code for answer in (*answers, refused)] == [200, 200, 200, 401]

    assert wait_until(lambda: len(gateway.rows()) == 4, 30)
    assert wait_until(lambda: gateway.json("list-keys")[0]["last_used_at"] is not None, 30)
    verified = gateway.json("verify-audit")
    used = gateway.json("usage")
    tokens = ask(gateway.database_url, "SELECT sum(tokens) AS n FROM ledger")[0]["n"]
    assert (verified["intact"], sum(day["rows"] for day in verified["days"])) == (True, 4)
    assert sum(one["tokens"] for one in used) == tokens > 0
    assert gateway.json("verify-ledger")["equal"]
    rights = {one["check"]: one["sentence"] for one in gateway_doctor(gateway)}
    assert (
        rights["audit rights"] == "The database role that serves adds to the audit log, and can't change it."
    )
    gateway.stop()
    assert '"level":"ERROR"' not in gateway.log.read_text()


def gateway_doctor(gateway: Gateway) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(gateway.command("doctor", "--json").stdout)
    return found


def test_commands_of_the_serving_role_are_refused_with_a_sentence(gateway):
    """Without DATABASE_ADMIN_URL nothing is changed, and what to do is said."""
    removed = gateway.json("apply-retention")
    del gateway.environment["DATABASE_ADMIN_URL"]

    for arguments in (
        ["create-key", "--tenant", "acme", "--name", "two"],
        ["suspend-tenant", "--name", "acme"],
        ["purge-tenant", "--name", "acme", "--yes"],
        ["apply-retention"],
        ["set-retention", "--tenant", "acme", "--days", "3"],
    ):
        failed = gateway.command(*arguments)
        assert (failed.returncode, failed.stdout) == (1, ""), arguments
        assert "DATABASE_ADMIN_URL" in failed.stderr, failed.stderr
        assert failed.stderr.count("\n") == 1
    assert removed == {"days_removed": 0, "rows_removed": 0}
    assert gateway.json("list-keys")[0]["status"] == "active"


def test_the_role_that_owns_the_tables_is_no_serving_role(gateway):
    """And one that is not there is told how to make."""
    owner = gateway.command("migrate", "--grant-to", "gateway")
    nobody = gateway.command("migrate", "--grant-to", "nobody_there")

    assert "owns the tables" in owner.stderr
    assert "CREATE ROLE nobody_there LOGIN" in nobody.stderr
    assert [owner.returncode, nobody.returncode] == [1, 1]


def test_every_table_says_what_the_serving_role_may(postgres_url):
    """A new table that is forgotten here would be missing where there are two roles."""
    tables = ask(
        postgres_url,
        "SELECT relname::text AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition",
    )
    yoyos = {"_yoyo_log", "_yoyo_version", "yoyo_lock"}

    assert {one["name"] for one in tables} - yoyos == set(RIGHTS)
