"""Commands for tenants."""

import re

import pytest

from tests.cli.conftest import NO_BOUNDS, NO_MODEL_BOUNDS


def test_a_tenant_is_made_with_the_next_step_to_take(unmigrated):
    """The command that follows is ready to be copied, quoted where it must be."""
    unmigrated("migrate")

    made = unmigrated("create-tenant", "--name", "Acme & Sons")

    assert (made.exit_code, made.stderr) == (0, "")
    assert made.stdout.splitlines() == [
        "Made the tenant 'Acme & Sons'. Its first key:",
        "  neuronetz-gateway create-key --tenant 'Acme & Sons' --name my-first-key",
    ]


def test_programs_get_one_object_for_a_new_tenant(unmigrated):
    """Times are ISO 8601, UTC."""
    unmigrated("migrate")

    made = unmigrated.json("create-tenant", "--name", "acme")

    assert made == {
        "id": made["id"],
        "name": "acme",
        "created_at": made["created_at"],
        "status": "active",
        "suspended_at": None,
        "time_zone": "UTC",
        **NO_BOUNDS,
        **NO_MODEL_BOUNDS,
        "allow_cloud": False,
        "weight": 1,
        "audit_retention_days": None,
    }
    assert re.fullmatch(r"[0-9a-f]{32}", made["id"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", made["created_at"])


def test_tenants_are_listed_by_name(run):
    """For programs one list, for people a table."""
    run("create-tenant", "--name", "Aachen")

    table = run("list-tenants").stdout.splitlines()

    assert [tenant["name"] for tenant in run.json("list-tenants")] == ["Aachen", "acme"]
    assert [line.split()[0] for line in table] == ["Name", "Aachen", "acme"]


def test_an_empty_list_says_how_to_begin(unmigrated):
    """To people; programs get an empty list."""
    unmigrated("migrate")

    assert unmigrated.json("list-tenants") == []
    assert unmigrated("list-tenants").stdout == (
        "There are no tenants yet; `neuronetz-gateway create-tenant --name acme` makes one.\n"
    )


def test_a_name_that_is_taken_is_refused(run):
    """Whatever the case: exit code 1, the request was well-formed."""
    refused = run("create-tenant", "--name", "ACME")

    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "Error: There is a tenant 'acme' already; choose another name.\n"


@pytest.mark.parametrize("name", ["", " acme", "a\nb", "a\x1b[31m", "x" * 65], ids=ascii)
def test_a_bad_name_is_wrong_usage(run, name):
    """Nothing that could forge a line of a table gets in."""
    refused = run("create-tenant", "--name", name)

    assert refused.exit_code == 2
    assert "Invalid value for '--name': A name " in refused.stderr
    assert "\x1b" not in refused.stderr
