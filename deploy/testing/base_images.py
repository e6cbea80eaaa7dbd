"""The images that our files name: pulled where a registry answers, else made of Debian packages.

Made ones have the official names, users, folders and variables, as far as compose.yaml relies on them. So the
files are tried unchanged on a machine that reaches Debian, PyPI and Go's module proxy only.

    python -m deploy.testing.base_images     makes them on the engine that runs
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from deploy.testing.engine import Engine, Unavailable, an_engine, built_by_go, cache

ROOT: Final = Path(__file__).parents[2]
IMAGES: Final = Path(__file__).parent / "images"
SUITE: Final = "trixie"
DEBIAN: Final = f"debian:{SUITE}-slim"
# Not under the official name: on an engine that has the real one, that one stays.
ENGINE: Final = "neuronetz-gateway-testing/ollama"
OFFICIAL: Final = {
    "python": "python:3.13-slim",
    "postgres": "postgres:17",
    "redis": "redis:8",
    "caddy": "caddy:2",
    "nginx": "nginxinc/nginx-unprivileged",
}
# Debian's own is older than the corrections of 2026 to how Caddy matches paths.
_GO_CADDY: Final = "github.com/caddyserver/caddy/v2@v2.11.9"
_PULL_S: Final = 60
_TRUSTED: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# What the official slim image leaves out, too.
_LEFT_OUT: Final = (
    *("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "proc/*", "sys/*", "dev/*"),
    *("usr/share/doc/*", "usr/share/man/*", "usr/share/locale/*", "usr/share/info/*"),
)


def made(engine: Engine) -> None:
    """All of them are there afterwards. Raises Unavailable."""
    wanted = {name: image for name, image in OFFICIAL.items() if not _has(engine, image)}
    if wanted and _pulled(engine, wanted["redis"] if "redis" in wanted else next(iter(wanted.values()))):
        for image in wanted.values():
            engine.run("docker", "pull", "--quiet", image)
        wanted = {}
    if wanted or not _has(engine, ENGINE):
        _make_debian(engine)
    for name, image in wanted.items():
        _make(engine, name, image)
    if not _has(engine, ENGINE):
        _make(engine, "ollama", ENGINE)


def _has(engine: Engine, image: str) -> bool:
    return bool(engine.run("docker", "images", "--quiet", image).strip())


def _pulled(engine: Engine, image: str) -> bool:
    try:
        engine.run("docker", "pull", "--quiet", image, timeout_s=_PULL_S)
    except (RuntimeError, subprocess.TimeoutExpired):
        return False
    return True


def _make_debian(engine: Engine) -> None:
    if _has(engine, DEBIAN):
        return
    archive = cache() / f"{SUITE}.tar"
    if not archive.exists():
        if not shutil.which("debootstrap"):
            raise Unavailable("no registry answers, and debootstrap is missing (apt install debootstrap)")
        with tempfile.TemporaryDirectory() as folder:
            system = Path(folder) / "system"
            command = ["debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(system)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unavailable(f"debootstrap failed:\n{done.stdout[-2000:]}{done.stderr[-500:]}")
            (system / "etc/apt/apt.conf.d/docker-clean").write_text(
                'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb || true"; };\n'
                'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n'
            )
            excluded = "".join(
                f"path-exclude /usr/share/{name}/*\n" for name in ("doc", "man", "info", "locale")
            )
            (system / "etc/dpkg/dpkg.cfg.d/docker").write_text(excluded)
            left_out = [f"--exclude=./{pattern}" for pattern in _LEFT_OUT]
            part = archive.with_suffix(".part")
            subprocess.run(["tar", "-C", str(system), *left_out, "-cf", str(part), "."], check=True)
            part.rename(archive)
    engine.run("docker", "import", str(archive), DEBIAN)


def _make(engine: Engine, name: str, image: str) -> None:
    with tempfile.TemporaryDirectory() as text:
        context = Path(text)
        shutil.copytree(IMAGES / name, context, dirs_exist_ok=True)
        if name == "python" and _TRUSTED.exists():
            shutil.copy(_TRUSTED, context)
        if name == "caddy":
            shutil.copy(built_by_go(_GO_CADDY, "./cmd/caddy", "caddy"), context)
        if name == "ollama":
            for part in ("requirements", "gateway", "migrations"):
                shutil.copytree(ROOT / part, context / part, ignore=shutil.ignore_patterns("__pycache__"))
        build(engine, context, image)


def build(engine: Engine, context: Path, image: str, *arguments: str) -> None:
    """By the builder that every engine has."""
    legacy = Engine({**engine.environment, "DOCKER_BUILDKIT": "0"}, engine.is_own)
    legacy.run("docker", "build", "--quiet", "--tag", image, *arguments, str(context), timeout_s=1800)


if __name__ == "__main__":
    with an_engine() as running:
        made(running)
        print(running.run("docker", "images"))
