"""Alert rules and the board: a running gateway has every metric in them, and Prometheus takes them.

The real Prometheus and its promtool are used where the machine has them (Debian: `apt install prometheus`).
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.engines import wait_until
from tests.gateways import Gateway
from tests.servers import free_port, launched

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
BOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "neuronetz-gateway.json").read_text())
HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}
# What Grafana puts in for these before it asks.
VARIABLES = {"$instance": ".*", "$tenant": ".*", "$__rate_interval": "1m", "${datasource}": "any"}

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no Prometheus here; on Debian: apt install prometheus",
)


def alert_expressions() -> list[str]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


def panel_expressions() -> dict[str, str]:
    """By panel and target, with Grafana's variables filled in."""
    return {
        f"{panel['title']} {target['refId']}": _filled(target["expr"])
        for panel in BOARD["panels"]
        for target in panel.get("targets", ())
    }


def _filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def test_every_alert_has_its_section_in_the_runbook():
    """An alert leads to what to do: a heading of its name in the runbook, with more than a line below."""
    rules = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
    guide = (DEPLOY.parent / "docs" / "OPERATIONS.md").read_text()
    runbook = re.search(r"^## Runbook\n(.*?)(?=^## |\Z)", guide, re.MULTILINE | re.DOTALL)
    assert runbook is not None
    sections = dict(re.findall(r"^### (\w+)\n\n(.*?)(?=^### |\Z)", runbook[1], re.MULTILINE | re.DOTALL))

    assert sections.keys() == {rule["alert"] for rule in rules}
    for rule in rules:
        assert rule["annotations"]["runbook"] == f"docs/OPERATIONS.md#{rule['alert'].lower()}"
        assert len(sections[rule["alert"]]) > 100
        is_critical = rule["labels"]["severity"] == "critical"
        assert sections[rule["alert"]].startswith("*Critical.*") == is_critical


def metrics_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:gateway|process)_[a-z_]+\b", expression))


@pytest.fixture
def busy_gateway(own_gateway: Gateway) -> Gateway:
    """It has served, refused and been left; acme has a budget."""
    own_gateway.json("set-budgets", "--tenant", "acme", "--daily-tokens", "1_000_000")
    with own_gateway.client() as client:
        for _ in range(3):
            client.post("/v1/chat/completions", json={"model": "greeting", "stream": True, **HELLO})
        client.post("/api/pull", json={})
        client.get("/v1/models", headers={"Authorization": "Bearer nz_wrong"})
    return own_gateway


def names_of(gateway: Gateway) -> set[str]:
    """All that its metrics may be called in a query."""
    text = httpx.get(f"{gateway.ops_url}/metrics", trust_env=False, timeout=30).text
    names = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return names


def test_every_metric_of_alerts_and_board_is_one_of_a_running_gateway(busy_gateway: Gateway):
    """A renamed metric would leave an alert silent for ever."""
    known = names_of(busy_gateway)

    used = {
        name
        for expression in (*alert_expressions(), *panel_expressions().values())
        for name in metrics_in(expression)
    }
    assert len(used) > 20
    assert used - known == set()


def test_every_metric_of_the_gateway_is_in_the_alerts_or_on_the_board(busy_gateway: Gateway):
    """Save what explains itself beside another one."""
    beside = {
        "gateway_build_info",
        "gateway_spool_records",
        "gateway_spool_disk_lag_seconds",
        "gateway_settling",
    }
    used = {
        name
        for expression in (*alert_expressions(), *panel_expressions().values())
        for name in metrics_in(expression)
    }
    known = {name for name in names_of(busy_gateway) if name.startswith("gateway_")}

    unused = {name for name in known - used if not name.endswith(("_sum", "_count", "_created"))}
    assert unused == beside


def test_panels_have_a_title_and_ids_of_their_own():
    ids = [panel["id"] for panel in BOARD["panels"]]

    assert len(set(ids)) == len(ids)
    assert all(panel["title"] for panel in BOARD["panels"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in BOARD["panels"])


@needs_prometheus
@pytest.mark.parametrize(
    "command",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_takes_the_rules(command: tuple[str, ...]):
    """And the alerts fire for what they are for, and for nothing else."""
    done = subprocess.run(
        ["promtool", *command], cwd=ALERTS.parent, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


class NotReady(Exception):
    """It listens, and reads what it has on disk."""


class Prometheus:
    """A real one that scrapes one gateway every second, with the alert rules."""

    def __init__(self, folder: Path, gateway: Gateway) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        configured = yaml.safe_load((ALERTS.parent / "prometheus.yml").read_text())
        configured["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        configured["rule_files"] = [str(ALERTS)]
        target = gateway.ops_url.removeprefix("http://")
        configured["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(configured))
        self.process = launched(
            [
                str(shutil.which("prometheus")),
                f"--config.file={folder}/prometheus.yml",
                f"--storage.tsdb.path={folder}/tsdb",
                f"--web.listen-address={self.url.removeprefix('http://')}",
            ],
            folder,
        )

    def get(self, path: str, **parameters: str) -> Any:
        answered = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, trust_env=False, timeout=30)
        if answered.status_code == 503:
            raise NotReady
        told = answered.json()
        assert told["status"] == "success", told
        return told["data"]

    def series(self, expression: str) -> list[Any]:
        try:
            found: list[Any] = self.get("query", query=expression)["result"]
        except (httpx.ConnectError, NotReady):
            return []
        return found


@pytest.fixture
def prometheus(tmp_path: Path, busy_gateway: Gateway) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    one = Prometheus(folder, busy_gateway)
    try:
        yield one
    finally:
        one.process.terminate()
        one.process.wait(30)


@needs_prometheus
def test_every_panel_shows_something_of_a_gateway_that_works(prometheus: Prometheus, busy_gateway: Gateway):
    """In the real Prometheus, which scrapes it while requests come in; what runs at the moment is nothing."""
    # A rate needs two scrapes with a change between them.
    assert wait_until(lambda: len(prometheus.series("gateway_requests_total offset 2s")) > 0, 60)
    with busy_gateway.client() as client:
        client.post("/v1/chat/completions", json={"model": "greeting", "stream": True, **HELLO})
        client.post("/api/pull", json={})
    assert wait_until(
        lambda: len(prometheus.series('increase(gateway_tokens_total{kind="completion"}[1m]) > 0')) > 0, 60
    )

    empty = {name for name, expression in panel_expressions().items() if not prometheus.series(expression)}

    # No slots are set for it.
    assert empty == {"Running by key A", "Slots B", "Wait for a slot, p95 A"}


@needs_prometheus
def test_prometheus_has_no_trouble_with_the_rules(prometheus: Prometheus):
    """All of them are evaluated on real data; none of a healthy gateway's fires."""
    assert wait_until(lambda: len(prometheus.series("gateway_ready offset 3s")) > 0, 60)

    (group,) = prometheus.get("rules")["groups"]
    assert {(rule["name"], rule["health"]) for rule in group["rules"]} == {
        (rule["name"], "ok") for rule in group["rules"]
    }
    firing = {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}
    assert firing == set()
