"""The pages for people, in a real browser: whole, readable, and loading nothing from anywhere."""

import html
import re
import shutil
import subprocess
import sys

import httpx
import pytest

from gateway.demo.scripts import GREETING
from tests.browsers import Browser
from tests.gateways import Gateway


def test_the_page_shows_this_gateway_s_own_address(gateway: Gateway, browser: Browser):
    """In every example, by a script that the page's own policy allows."""
    seen = browser.open(f"{gateway.url}/docs")

    assert seen.dom.count(gateway.url) >= 6
    assert "gateway.example" not in seen.dom
    assert seen.dom.count(">Copy</button>") == seen.dom.count("<figure>") == 5
    assert "violates" not in seen.log, "of its Content-Security-Policy"
    assert "Failed to load resource" not in seen.log


def test_the_root_shows_browsers_the_way(gateway: Gateway, browser: Browser):
    assert 'href="/docs"' in browser.open(gateway.url).dom


def test_the_root_says_to_everyone_else_what_ollama_says(gateway: Gateway):
    answer = httpx.get(gateway.url, headers={"accept": "*/*"})

    assert (answer.text, answer.headers["content-type"]) == ("Ollama is running", "text/plain; charset=utf-8")


def test_the_pages_need_no_key_and_load_nothing(gateway: Gateway):
    page = httpx.get(f"{gateway.url}/docs")
    head = httpx.head(f"{gateway.url}/docs")
    document = httpx.get(f"{gateway.url}/openapi.json")

    assert (page.status_code, head.status_code, document.status_code) == (200, 200, 200)
    assert head.headers["content-length"] == str(len(page.content))
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r'(?:src|href)="(?!/|#)', page.text), "nothing of another host"
    assert document.json()["openapi"] == "3.1.0"


def test_every_route_of_the_document_is_there(gateway: Gateway):
    """Asked with the method that it names: neither unknown nor another method's."""
    paths = httpx.get(f"{gateway.url}/openapi.json").json()["paths"]
    with gateway.client() as client:
        statuses = {
            (method, path): client.request(method, path.replace("{model}", "greeting")).status_code
            for path, methods in paths.items()
            for method in methods
        }

    assert not {asked: status for asked, status in statuses.items() if status in (401, 404, 405, 500)}


def examples(gateway: Gateway) -> dict[str, str]:
    """By their captions, as a reader would paste them: with the gateway's address, a key and a model."""
    page = httpx.get(f"{gateway.url}/docs").text
    figures = re.findall(r"<figcaption>(.*?)</figcaption>\s*<pre><code>(.*?)</code></pre>", page, re.DOTALL)
    filled = (("https://gateway.example", gateway.url), ("nz_YOUR_KEY", gateway.key), ("MODEL", "greeting"))
    found = {}
    for caption, code in figures:
        text = html.unescape(re.sub(r"<[^>]*>", "", code))
        for blank, value in filled:
            text = text.replace(blank, value)
        found[caption] = text
    return found


@pytest.mark.parametrize("caption", ["curl", "OpenAI, Python", "Anthropic, Python", "Ollama, Python"])
def test_an_example_of_the_page_works_as_it_stands(gateway: Gateway, caption: str):
    """Whoever pastes it gets an answer."""
    if caption == "curl" and shutil.which("curl") is None:
        pytest.skip("no curl here")
    command = ["sh", "-c"] if caption == "curl" else [sys.executable, "-c"]

    done = subprocess.run(
        [*command, examples(gateway)[caption]], capture_output=True, text=True, timeout=60, check=True
    )

    said = "".join(re.findall(r'"content":"([^"]*)"', done.stdout)) if caption == "curl" else done.stdout
    assert GREETING.answer in said


def test_the_example_for_javascript_is_there(gateway: Gateway):
    """The conformance suite runs that client; here is no Node.js for sure."""
    assert "client.responses.create({" in examples(gateway)["OpenAI, JavaScript"]
