"""compose.yaml and what goes over it, read as files. `make test-deploy` brings it up."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.config import SETTINGS
from gateway.server.service import Bounds

ROOT = Path(__file__).parents[2]
OVERRIDES = sorted((ROOT / "deploy").glob("compose.*.yaml"))


class ComposeLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Compose has two tags of its own: !override and !reset."""


def _of_compose(loader: ComposeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return None


ComposeLoader.add_multi_constructor("!", _of_compose)


def loaded(path: Path) -> Any:
    return yaml.load(path.read_text(), ComposeLoader)


SERVICES: dict[str, Any] = loaded(ROOT / "compose.yaml")["services"]
NETWORKS: dict[str, Any] = loaded(ROOT / "compose.yaml")["networks"]
every_service = pytest.mark.parametrize("name", SERVICES)


@every_service
def test_a_service_can_do_nothing_that_it_need_not(name: str):
    """No root, no capabilities, nothing to write but its volumes."""
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "caddy" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    # The gateway's image says it itself.
    assert name in ("gateway", "migrate") or service["user"] not in ("root", "0", "0:0")


@every_service
def test_a_service_has_limits_and_a_log_that_ends(name: str):
    limits = SERVICES[name]["deploy"]["resources"]["limits"]

    assert limits.keys() == {"cpus", "memory", "pids"}
    assert SERVICES[name]["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


def test_only_caddy_has_ports_and_on_loopback_unless_it_is_told_otherwise():
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert ports.keys() == {"caddy"}
    assert all(port.startswith("${PUBLISH_ADDRESS:-127.0.0.1}:") for port in ports["caddy"])


def test_the_models_and_the_stores_are_on_networks_without_a_way_out():
    """And only the gateway meets the models; the part that fetches them meets nobody."""
    on = {
        network: {name for name, one in SERVICES.items() if network in one["networks"]}
        for network in NETWORKS
    }

    assert on["models"] == {"gateway", "ollama"}
    assert on["data"] == {"gateway", "migrate", "postgres", "redis"}
    assert on["edge"] == {"caddy", "gateway"}
    assert on["egress"] == {"pull"}
    assert on["front"] == {"caddy"}
    assert {name for name, network in NETWORKS.items() if network.get("internal")} == {
        "edge",
        "data",
        "models",
    }


def test_the_gateway_starts_when_what_it_needs_is_there():
    conditions = {name: one["condition"] for name, one in SERVICES["gateway"]["depends_on"].items()}

    assert conditions == {
        "migrate": "service_completed_successfully",
        "postgres": "service_healthy",
        "redis": "service_healthy",
        "ollama": "service_healthy",
    }
    assert all("healthcheck" in SERVICES[name] for name in ("gateway", "postgres", "redis", "ollama"))


def test_replicas_can_be_scaled():
    """Nothing about the gateway may be there once only."""
    assert not {"container_name", "ports", "hostname"} & SERVICES["gateway"].keys()


def test_redis_forgets_nothing():
    command = " ".join(SERVICES["redis"]["command"])

    assert "--maxmemory-policy noeviction" in command
    assert "--appendonly yes" in command


def test_secrets_are_files_and_in_no_environment():
    environment = SERVICES["gateway"]["environment"]

    assert {name for name in environment if name.endswith("_FILE")} == {
        f"{setting}_FILE" for setting in ("DATABASE_URL", "REDIS_URL", "GATEWAY_SECRET")
    }
    assert not environment.keys() & {setting.name for setting in SETTINGS if setting.secret}


def test_ollama_keeps_to_itself():
    assert SERVICES["ollama"]["environment"]["OLLAMA_NO_CLOUD"] == "1"


def test_a_drain_may_end_before_the_engine_kills():
    """GATEWAY_DRAIN_S is 120."""
    assert SERVICES["gateway"]["stop_grace_period"] == "150s"


@pytest.mark.parametrize("path", OVERRIDES, ids=lambda path: path.name)
def test_an_override_opens_nothing_to_the_world(path: Path):
    for service in loaded(path)["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert not {"privileged", "network_mode", "pid"} & service.keys()


@pytest.mark.parametrize("name", ["Caddyfile", "nginx.conf"])
def test_a_proxy_lets_go_of_idle_connections_before_the_gateway_does(name: str):
    """Else a request now and then meets a connection that is just being closed, and fails."""
    assert Bounds().idle_s > 60
    assert {"Caddyfile": "keepalive 60s", "nginx.conf": "keepalive_timeout 60s;"}[name] in (
        ROOT / "deploy" / name
    ).read_text()
