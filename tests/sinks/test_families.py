"""What is told of our plain numbers is what the library tells of its own counters and histograms."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics import disable_created_metrics

from gateway.sinks.families import Counts, Measures

disable_created_metrics()

BOUNDS = (0.01, 0.5, 1, 2.5)
VALUES = (0.0, 0.01, 0.011, 0.5, 1, 2.5, 2.6, 600.0)


def test_counters_are_told_as_the_librarys_are():
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    counter = Counter("gateway_tokens", "Tokens used.", ("model", "kind"), registry=theirs)
    counts = Counts("gateway_tokens", "Tokens used.", ("model", "kind"))
    ours.register(counts)

    for labels, amount in (("b", "prompt"), 7), (("a", 'co"mp'), 0.25), (("b", "prompt"), 10**30):
        counter.labels(*labels).inc(amount)
        counts.of[labels] += amount

    assert generate_latest(ours) == generate_latest(theirs)


def test_histograms_are_told_as_the_librarys_are():
    """A value that is a bucket's bound is in it."""
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram("gateway_wait_seconds", "Waited.", ("backend",), buckets=BOUNDS, registry=theirs)
    measures = Measures("gateway_wait_seconds", "Waited.", ("backend",), BOUNDS)
    ours.register(measures)

    for value in VALUES:
        histogram.labels("gpu").observe(value)
        measures.of["gpu",].observe(value)

    assert generate_latest(ours) == generate_latest(theirs)


def test_a_family_without_labels_is_told_of_before_anything_is_measured():
    theirs, ours = CollectorRegistry(), CollectorRegistry()
    Histogram("gateway_lag_seconds", "How late.", buckets=BOUNDS, registry=theirs)
    ours.register(Measures("gateway_lag_seconds", "How late.", (), BOUNDS))

    assert generate_latest(ours) == generate_latest(theirs)


def test_a_scrape_may_ask_for_some_names_only():
    registry = CollectorRegistry()
    counts = Counts("gateway_requests", "Finished.", ())
    counts.of[()] += 1
    registry.register(counts)
    registry.register(Measures("gateway_lag_seconds", "How late.", (), BOUNDS))

    told = generate_latest(registry.restricted_registry(["gateway_requests_total"]))

    assert b"gateway_requests_total 1.0" in told
    assert b"gateway_lag_seconds" not in told
