"""The proxies' files, judged by the proxies: Caddy and nginx, where the machine has them.

On Debian: `apt install caddy nginx-light`. What they do to requests is tried by `make test-deploy`.
"""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.config import parse

DEPLOY = Path(__file__).parents[2] / "deploy"
CADDY = shutil.which("caddy") or ""


@pytest.mark.skipif(not CADDY, reason="no Caddy here; on Debian: apt install caddy")
@pytest.mark.parametrize("domain", ["localhost", "llm.example.com"])
def test_caddy_takes_its_file(domain: str, tmp_path: Path):
    done = subprocess.run(
        [CADDY, "validate", "--config", DEPLOY / "Caddyfile", "--adapter", "caddyfile"],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "GATEWAY_DOMAIN": domain},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "not formatted" not in done.stderr


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx here; on Debian: apt install nginx-light")
def test_nginx_takes_its_file(tmp_path: Path):
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    of_whom = ["-nodes", "-subj", "/CN=llm.example.com"]
    to = ["-keyout", str(tmp_path / "privkey.pem"), "-out", str(tmp_path / "fullchain.pem")]
    subprocess.run([*command, *of_whom, *to], check=True, capture_output=True)
    text = (DEPLOY / "nginx.conf").read_text().replace("/etc/nginx/tls", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(text)

    done = subprocess.run(
        ["nginx", "-t", "-c", tmp_path / "nginx.conf"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_the_body_cap_of_each_proxy_is_the_gateways():
    cap = parse({}).max_body_bytes

    assert f"max_size {{$GATEWAY_MAX_BODY_BYTES:{cap}}}" in (DEPLOY / "Caddyfile").read_text()
    assert f"client_max_body_size {cap};" in (DEPLOY / "nginx.conf").read_text()


@pytest.mark.parametrize(
    "name",
    ["Upgrade", "HTTP2-Settings", "Forwarded", "X-Real-IP", "X-Client-IP", "True-Client-IP",
     "CF-Connecting-IP", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method",
     "X-HTTP-Method-Override", "X-Method-Override",
     "X-Forwarded-Host", "X-Forwarded-Prefix", "Proxy", "Via"],
)  # fmt: skip
def test_what_a_caller_may_not_say_passes_neither_proxy(name: str):
    patterns = re.findall(r"^\trequest_header -(\S+)$", (DEPLOY / "Caddyfile").read_text(), re.MULTILINE)

    assert any(re.fullmatch(pattern.replace("*", ".*"), name) for pattern in patterns)
    assert f'proxy_set_header {name} "";' in (DEPLOY / "nginx.conf").read_text()
