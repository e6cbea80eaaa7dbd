"""Fixtures of the whole suite: real engines and servers, and the gateway as a process of its own."""

import signal

from hypothesis import HealthCheck, settings

# How fast this machine is, and what else it does, decides no test.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest_plugins = [
    "tests.browsers",
    "tests.engines",
    "tests.servers",
    "tests.postgres_server",
    "tests.gateways",
    "tests.tls_front",
    "tests.conformance.stage",
]


def pytest_configure() -> None:
    """A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
