"""Fixtures of the whole suite: real engines and servers, and the gateway as a process of its own."""

pytest_plugins = [
    "tests.browsers",
    "tests.engines",
    "tests.servers",
    "tests.postgres_server",
    "tests.gateways",
    "tests.tls_front",
    "tests.conformance.stage",
]
