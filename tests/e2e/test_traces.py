"""Traces of a gateway that runs, at a collector."""

from tests.collector import Collector
from tests.engines import wait_until
from tests.gateways import Gateway
from tests.servers import free_port

HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}


def test_each_request_is_traced(own_gateway: Gateway):
    """What is left when it stops, too."""
    own_gateway.stop()
    with Collector() as collector:
        own_gateway.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        own_gateway.start()
        with own_gateway.client() as client:
            served = client.post("/v1/chat/completions", json={"model": "greeting", "stream": True, **HELLO})
        assert wait_until(lambda: bool(collector.bodies), 60)
        with own_gateway.client() as client:
            client.post("/api/pull", json={})
        own_gateway.terminate()
        assert own_gateway.wait(60) == 0
        spans = {span.name: span for span in collector.spans()}

    call, server = spans["chat greeting:latest"], spans["POST chat_completions"]
    assert call.parent_span_id == server.span_id
    ids = {one.value.string_value for one in server.attributes if one.key == "gateway.request_id"}
    assert ids == {served.headers["x-request-id"]}
    assert "POST none" in spans, "the last one, which was left when it stopped"


def test_a_collector_that_is_away_holds_nobody_up(own_gateway: Gateway):
    """Neither requests nor the end; the log says so once."""
    own_gateway.stop()
    own_gateway.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
    own_gateway.start()
    with own_gateway.client() as client:
        assert client.post("/v1/chat/completions", json={"model": "greeting", **HELLO}).status_code == 200
    assert wait_until(lambda: "traces do not reach the collector" in own_gateway.log.read_text(), 60)

    own_gateway.terminate()

    assert own_gateway.wait(60) == 0
