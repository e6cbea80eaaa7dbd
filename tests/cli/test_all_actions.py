"""Every command that changes something is noted: by whom, and what. All commands are here."""

from gateway.cli.actors import this_actor
from gateway.cli.main import SECTIONS
from gateway.config import load
from tests.cli.conftest import Commands
from tests.databases import ask

# What each is noted as. `{prefix}` is that of a key of acme's.
CHANGING = {
    "create-tenant": (["--name", "globex"], "create_tenant"),
    "suspend-tenant": (["--name", "acme"], "suspend_tenant"),
    "resume-tenant": (["--name", "acme"], "resume_tenant"),
    "create-key": (["--tenant", "acme", "--name", "two"], "create_key"),
    "update-key": (["--prefix", "{prefix}", "--name", "three"], "update_key"),
    "rotate-key": (["--prefix", "{prefix}"], "rotate_key"),
    "set-limits": (["--tenant", "acme", "--rpm", "5"], "change_tenant"),
    "set-budgets": (["--prefix", "{prefix}", "--daily-tokens", "5"], "change_key"),
    "allow-models": (["--tenant", "acme", "--models", "a"], "change_tenant"),
    "set-model": (["--name", "big", "--model", "b"], "set_model"),
    "remove-model": (["--name", "big"], "remove_model"),
    "drain-backend": (["127.0.0.1:11434"], "drain_backend"),
    "set-retention": (["--tenant", "acme", "--days", "9"], "change_tenant"),
    "show-prompts": (["--prefix", "{prefix}"], "show_prompts"),
    "purge-prompts": (["--prefix", "{prefix}", "--yes"], "purge_prompts"),
    "purge-tenant": (["--name", "acme", "--yes"], "purge_tenant"),
    "apply-retention": ([], "apply_retention"),
    "rebuild-counters": (["--tenant", "acme"], "rebuild_counters"),
    "revoke-key": (["--prefix", "{prefix}"], "revoke_key"),
    "delete-tenant": (["--name", "acme", "--yes"], "delete_tenant"),
    "migrate": (["--back-to", "0020_audit_kept", "--yes"], "migrate_back"),
}
# Nothing that is kept in the database is changed by these; `quickstart` makes what others make.
OTHERS = {
    "list-tenants", "show-tenant", "list-keys", "show-key", "explain-key", "list-models", "warm-model",
    "add-backend", "remove-backend", "list-backends", "usage", "audit", "export-audit", "verify-audit",
    "list-actions", "serve", "doctor", "top", "quickstart", "verify-ledger",
}  # fmt: skip


def test_every_command_either_changes_or_does_not():
    """A new command is put on one of both lists."""
    commands = {command.name for _, section in SECTIONS for command in section}

    assert commands == set(CHANGING) | OTHERS


def test_what_is_changed_is_noted_with_who_and_what(shared, run: Commands, prefix: str):
    """In the transaction of the change, or right after what is no change of the database's."""
    ask(
        load().database_url,
        "INSERT INTO audit (request_id, received_at_us, tenant_id, peer, method, path, surface, stream,"
        " status, outcome, tokens_estimated, duration_ms, bytes_in, bytes_out)"
        " SELECT 'old', 1, id, '', 'GET', '/', 'ollama', FALSE, 200, 'served', FALSE, 1, 0, 0 FROM tenants",
    )
    noted = {}
    before = len(run.json("list-actions", "--limit", "1000"))
    for name, (arguments, _) in CHANGING.items():
        result = run(name, *(argument.format(prefix=prefix) for argument in arguments))
        assert result.exit_code == 0, (name, result.output)
        run("migrate")  # where it was taken back, and else nothing
        noted[name] = run.json("list-actions", "--limit", "1000")[before:]
        before += len(noted[name])

    # A rotation is told of both keys.
    assert {name: {one["action"] for one in actions} for name, actions in noted.items()} == {
        name: {action} if name != "migrate" else {action, "migrate"} for name, (_, action) in CHANGING.items()
    }
    everything = [one for actions in noted.values() for one in actions]
    here = this_actor()
    assert {(one["os_user"], one["host"]) for one in everything} == {(here.os_user, here.host)}
    # What was counted right before is counted so again.
    assert {one["action"] for one in everything if not one["changes"]} <= {"rebuild_counters"}
