"""Fixtures of the whole suite: real engines, and the gateway as a process of its own."""

pytest_plugins = ["tests.engines", "tests.gateways"]
