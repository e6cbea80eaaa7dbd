"""The manifests are what the API of Kubernetes takes, and hold what DEPLOYMENT.md promises of them.

They are rendered by the real kustomize where the machine has one (`kustomize` or `kubectl`).
"""

import copy
import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from dotenv import dotenv_values

from gateway.config import parse
from gateway.server.worker import FINAL_GRACE_S, LATE_GRACE_S
from tests.deploy.manifests import (
    GATEWAY,
    KUBERNETES,
    OVERLAYS,
    Manifest,
    build_command,
    manifests,
    of_kind,
    rendered,
)

# The oldest that providers still run, and the newest whose schemas are known.
VERSIONS = ("1.30.0", kubernetes_validate.latest_version())
# Not of Kubernetes itself, so it has no schema of it.
FOREIGN = {"ServiceMonitor"}
SECRETS = {
    "GATEWAY_SECRET": "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a6978",
    "DATABASE_URL": "postgresql://gateway:pw@postgres.data:5432/gateway",
    "REDIS_URL": "redis://redis.data:6379",
}

needs_kustomize = pytest.mark.skipif(
    build_command() is None, reason="neither kustomize nor kubectl here: overlays are judged as written"
)


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[Manifest]:
    return manifests(request.param)


def pods(among: list[Manifest]) -> list[dict[str, Any]]:
    """The specifications of all pods."""
    return [one["spec"]["template"]["spec"] for one in among if "template" in one.get("spec", {})]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


def assert_valid(manifest: Manifest) -> None:
    for version in VERSIONS:
        kubernetes_validate.validate(manifest, version, strict=True)


def assert_restricted(pod: dict[str, Any]) -> None:
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] >= 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} <= container["resources"].keys()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_find_a_mistake(version: str):
    """The judge works: an unknown field and a wrong type are found, in the depth of a pod."""
    right = of_kind("StatefulSet", manifests("fleet"))[GATEWAY]
    unknown, wrong = copy.deepcopy(right), copy.deepcopy(right)
    unknown["spec"]["template"]["spec"]["containers"][0]["portz"] = []
    wrong["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = "long"

    for mistaken in (unknown, wrong):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(mistaken, version, strict=True)


def test_all_is_what_the_api_takes(overlay: list[Manifest]):
    for manifest in overlay:
        assert_valid(manifest)


def test_nothing_is_left_out():
    """Every file is in an overlay or a component, or is one that an operator applies by hand."""
    by_hand = {KUBERNETES / "components" / "ollama" / "allow-pull.yaml"}
    named = set()
    for kustomization in KUBERNETES.rglob("kustomization.yaml"):
        document = yaml.safe_load(kustomization.read_text())
        named |= {kustomization.parent / name for name in document.get("resources", ())}

    files = {path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml"}
    assert files - named == by_hand
    for path in by_hand:
        assert_valid(yaml.safe_load(path.read_text()))


def with_components(folder: Path, *names: str) -> list[Manifest]:
    """The fleet with optional components."""
    document = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [str(_relative(folder, KUBERNETES / "overlays" / "fleet"))],
        "components": [str(_relative(folder, KUBERNETES / "components" / name)) for name in names],
        "namespace": "neuronetz",
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(document))
    result = rendered(folder)
    for manifest in result:
        if manifest["kind"] not in FOREIGN:
            assert_valid(manifest)
    return result


@needs_kustomize
def test_every_pod_is_scraped_where_the_operator_of_prometheus_is(tmp_path: Path):
    result = with_components(tmp_path, "monitoring")

    (monitor,) = of_kind("ServiceMonitor", result).values()
    watched = of_kind("Service", result)["neuronetz-gateway-ops"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= watched.items()


@needs_kustomize
def test_without_volumes_it_is_a_deployment(tmp_path: Path):
    """Its spool lives as long as the pod; the autoscaler scales that."""
    result = with_components(tmp_path, "ephemeral-spool")

    deployment = of_kind("Deployment", result)[GATEWAY]
    (pod,) = pods([deployment])
    mounted = {mount["name"] for mount in containers(pod)[0]["volumeMounts"]}
    assert mounted <= {volume["name"] for volume in pod["volumes"]}
    scaled = of_kind("HorizontalPodAutoscaler", result)[GATEWAY]["spec"]["scaleTargetRef"]
    assert scaled == {"apiVersion": "apps/v1", "kind": "Deployment", "name": GATEWAY}


@needs_kustomize
def test_with_two_roles_no_gateway_has_the_owners_address(tmp_path: Path):
    """Who migrates and who removes old rows has it; whoever removes them is no gateway to anybody."""
    result = with_components(tmp_path, "two-roles")
    admin = {"secretRef": {"name": "neuronetz-gateway-admin"}}

    pod = of_kind("StatefulSet", result)[GATEWAY]["spec"]["template"]["spec"]
    job = of_kind("CronJob", result)["apply-retention"]["spec"]["jobTemplate"]["spec"]["template"]
    assert admin in pod["initContainers"][0]["envFrom"]
    assert admin not in pod["containers"][0]["envFrom"]
    assert admin in job["spec"]["containers"][0]["envFrom"]
    assert job["spec"]["containers"][0]["envFrom"][0] == pod["containers"][0]["envFrom"][0]
    assert_restricted(job["spec"])
    for service in of_kind("Service", result).values():
        assert not service["spec"]["selector"].items() <= job["metadata"]["labels"].items()


def _relative(start: Path, path: Path) -> Path:
    """kustomize takes no absolute paths."""
    return Path(os.path.relpath(path.resolve(), start.resolve()))


def test_no_container_has_more_rights_than_it_needs(overlay: list[Manifest]):
    """What Pod Security calls `restricted`, which the namespace enforces, and a root file system to read."""
    for pod in pods(overlay):
        assert_restricted(pod)
    for namespace in of_kind("Namespace", overlay).values():
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_a_pod_is_waited_for_until_it_has_drained(overlay: list[Manifest]):
    """Until its Service forgot it, its requests have ended, and its spool is in the database."""
    pod = of_kind("StatefulSet", overlay)[GATEWAY]["spec"]["template"]["spec"]
    (gateway,) = pod["containers"]
    _, waits_s = gateway["lifecycle"]["preStop"]["exec"]["command"]
    drain_s = float(str(_settings()["GATEWAY_DRAIN_S"]))

    needed_s = float(waits_s) + drain_s + LATE_GRACE_S + FINAL_GRACE_S
    assert pod["terminationGracePeriodSeconds"] >= needed_s + 10


def test_the_settings_are_such_that_a_gateway_takes(overlay: list[Manifest]):
    """No name of a service of the cluster gets among them: GATEWAY_PORT would be refused as unknown."""
    config = parse({**_settings(), **SECRETS})

    assert (config.bind.host, config.ops_bind is not None) == ("0.0.0.0", True)
    pod = of_kind("StatefulSet", overlay)[GATEWAY]["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False
    mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert {str(config.data_dir), "/tmp"} <= mounts
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {"http": config.bind.port, "ops": config.ops_bind.port if config.ops_bind else None}


def test_no_secret_is_among_them(overlay: list[Manifest]):
    """They are referred to by name; no value of one, and no address with a password, is in any file."""
    looks_secret = re.compile(r"GATEWAY_SECRET\s*[=:]\s*\S|\w+://[^/\s@]*:[^/\s@]+@")
    assert looks_secret.search("x: redis://:pass@redis")
    assert of_kind("Secret", overlay) == {}
    assert [path for path in KUBERNETES.rglob("*.*") if looks_secret.search(path.read_text())] == []


def test_the_database_is_brought_up_to_date_before_a_pod_serves(overlay: list[Manifest]):
    pod = of_kind("StatefulSet", overlay)[GATEWAY]["spec"]["template"]["spec"]
    (migrate,) = pod["initContainers"]
    (serve,) = pod["containers"]

    assert (migrate["args"], serve["args"]) == (["migrate"], ["serve"])
    assert migrate["envFrom"] == serve["envFrom"]


def test_only_the_gateway_reaches_the_models(overlay: list[Manifest]):
    """What no policy names is denied; the one about Ollama lets the gateway in, and nothing out."""
    policies = of_kind("NetworkPolicy", overlay)
    assert policies["default-deny"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    about = [
        policy["spec"]
        for policy in policies.values()
        if policy["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/name") == "ollama"
    ]

    (only,) = about
    gateway = of_kind("StatefulSet", overlay)[GATEWAY]["spec"]["template"]["metadata"]["labels"]
    ((source,),) = [rule["from"] for rule in only["ingress"]]
    assert source["podSelector"]["matchLabels"].items() <= gateway.items()
    assert "namespaceSelector" not in source
    assert "Egress" in only["policyTypes"]
    assert "egress" not in only


def test_metrics_are_for_the_monitoring_namespace_alone(overlay: list[Manifest]):
    rules = of_kind("NetworkPolicy", overlay)["gateway-ingress"]["spec"]["ingress"]
    sources = {port["port"]: rule["from"] for rule in rules for port in rule["ports"]}

    assert sources.keys() == {"http", "ops"}
    label = "kubernetes.io/metadata.name"
    assert sources["ops"] == [{"namespaceSelector": {"matchLabels": {label: "monitoring"}}}]
    public = [rule["http"] for rule in of_kind("Ingress", overlay)[GATEWAY]["spec"]["rules"]]
    assert {path["backend"]["service"]["name"] for rule in public for path in rule["paths"]} == {GATEWAY}


def test_the_ingress_lets_streams_and_bodies_through(overlay: list[Manifest]):
    """Nothing is held back, nothing is sent twice, and the gateway's own bounds end a call first."""
    prefix = "nginx.ingress.kubernetes.io/"
    notes = of_kind("Ingress", overlay)[GATEWAY]["metadata"]["annotations"]
    config = parse({**_settings(), **SECRETS})

    assert notes[f"{prefix}proxy-buffering"] == "off"
    assert notes[f"{prefix}proxy-next-upstream"] == "off"
    assert int(notes[f"{prefix}proxy-read-timeout"]) > config.answer_timeout_s
    assert int(notes[f"{prefix}proxy-body-size"].removesuffix("m")) << 20 == config.max_body_bytes


@needs_kustomize
def test_one_gateway_counts_alone_and_a_fleet_scales():
    single, fleet = manifests("single"), manifests("fleet")

    assert of_kind("StatefulSet", single)[GATEWAY]["spec"]["replicas"] == 1
    assert of_kind("HorizontalPodAutoscaler", single) == {}
    assert "replicas" not in of_kind("StatefulSet", fleet)[GATEWAY]["spec"]  # it is the autoscaler's
    assert of_kind("HorizontalPodAutoscaler", fleet)[GATEWAY]["spec"]["minReplicas"] >= 2
    assert of_kind("PodDisruptionBudget", fleet)[GATEWAY]["spec"]["maxUnavailable"] == 1
    settings = next(iter(of_kind("ConfigMap", single).values()))["data"]
    assert settings["DATABASE_URL"].startswith(f"sqlite:///{settings['GATEWAY_DATA_DIR']}/")


def _settings() -> dict[str, str]:
    values = dotenv_values(KUBERNETES / "base" / "settings.env", interpolate=False)
    return {name: value or "" for name, value in values.items()}
