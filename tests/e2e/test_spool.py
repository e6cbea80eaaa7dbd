"""kill -9 of a gateway: what it answered is in the audit log once it has started again."""

import os
import signal

from tests.gateways import Gateway


def test_a_killed_gateway_forgets_no_answer(own_gateway: Gateway):
    """What it has finished is in the spool, whatever the database has of it: the next start drains it."""
    answered: dict[str, int] = {}
    for _ in range(3):
        with own_gateway.client() as client:
            for path in ("/v1/models", "/nowhere", "/api/tags", "/api/pull"):
                answer = client.get(path)
                answered[answer.headers["x-request-id"]] = answer.status_code
            assert own_gateway.process is not None
            os.kill(own_gateway.process.pid, signal.SIGKILL)
            own_gateway.wait()
        own_gateway.start()
    own_gateway.stop()

    rows = {row["request_id"]: row["status"] for row in own_gateway.rows()}
    assert rows == answered
    assert list((own_gateway.directory / "data" / "spool").iterdir()) == []


def test_a_spool_that_can_not_be_made_is_told_without_a_traceback(own_gateway: Gateway):
    """The operator reads which folder, and why."""
    own_gateway.stop()
    spool = own_gateway.directory / "data" / "spool"
    spool.rmdir()
    spool.write_text("in the way")

    refused = own_gateway.command("serve")

    assert refused.returncode == 1
    assert "data/spool can't be used: File exists." in refused.stderr
    assert "Traceback" not in refused.stderr
