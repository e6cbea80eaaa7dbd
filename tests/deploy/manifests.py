"""The manifests in deploy/kubernetes as a cluster would get them."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

KUBERNETES = Path(__file__).parent.parent.parent / "deploy" / "kubernetes"
OVERLAYS = ("single", "fleet")
GATEWAY = "neuronetz-gateway"

Manifest = dict[str, Any]


def build_command() -> list[str] | None:
    """What renders a folder here, if anything: `kustomize build` and `kubectl kustomize` do the same."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def rendered(folder: Path) -> list[Manifest]:
    """By the real kustomize. Raises AssertionError with what it says."""
    command = build_command()
    assert command is not None
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def written(folder: Path) -> Iterator[Manifest]:
    """All that a folder's kustomization names, as it stands: without its patches, names and generators."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    for name in [*kustomization.get("resources", ()), *kustomization.get("components", ())]:
        path = folder / name
        if path.is_dir():
            yield from written(path)
        else:
            yield from yaml.safe_load_all(path.read_text())


@cache
def manifests(overlay: str) -> list[Manifest]:
    """Of an overlay, as a cluster would get them; where no kustomize is here, as they are written.

    Not to be changed: all tests have the same.
    """
    folder = KUBERNETES / "overlays" / overlay
    return rendered(folder) if build_command() else list(written(folder))


def of_kind(kind: str, among: list[Manifest]) -> dict[str, Manifest]:
    """By name."""
    return {one["metadata"]["name"]: one for one in among if one["kind"] == kind}
