"""The model that never stops, for tests of leaving, time-outs and draining."""

import json
from http.client import HTTPConnection

from gateway.demo.engine import Engine
from tests.engines import busy_slots, connect, wait_until

BODY = json.dumps({"messages": [{"role": "user", "content": "sing"}], "stream": True})


def open_stream(connection: HTTPConnection, chunks: int) -> bytes:
    """Start a stream and read its first chunks; the connection stays open."""
    connection.request("POST", "/v1/chat/completions", BODY, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    read = [answer.readline() for _ in range(2 * chunks)]  # an empty line follows each
    answer.close()
    return b"".join(read)


def test_it_goes_on_until_the_client_leaves(engine_endless: Engine):
    """The engine notices the closed connection and frees the slot within a second."""
    connection = connect(engine_endless)
    read = open_stream(connection, chunks=500)
    busy_while_streaming = busy_slots(engine_endless)

    connection.close()

    assert b'"finish_reason":"' not in read
    assert busy_while_streaming == 1
    assert wait_until(lambda: busy_slots(engine_endless) == 0, within_s=1.0)


def test_four_answers_are_written_at_once(engine_endless: Engine):
    """Each of the four slots streams while the others do."""
    connections = [connect(engine_endless) for _ in range(4)]
    for connection in connections:
        open_stream(connection, chunks=3)
    busy_while_streaming = busy_slots(engine_endless)

    for connection in connections:
        connection.close()

    assert busy_while_streaming == 4
    assert wait_until(lambda: busy_slots(engine_endless) == 0, within_s=1.0)
