"""The pages for people, as they are shipped: whole in themselves, nothing is loaded from anywhere."""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Final

import orjson

from gateway.middleware.context import Header

HTML: Final = b"text/html; charset=utf-8"


def _page(name: str) -> bytes:
    return (files(__name__) / name).read_bytes()


def _policy(page: bytes) -> bytes:
    """What a browser may do with the page: run and apply what stands in it, and nothing else."""
    allowed = [
        f"{kind}-src {' '.join(_hashes(page, tag)) or repr('none')}"
        for kind, tag in (("style", b"style"), ("script", b"script"))
    ]
    fixed = ["default-src 'none'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]
    return "; ".join((*fixed, *allowed)).encode()


def _hashes(page: bytes, tag: bytes) -> list[str]:
    inner = re.findall(rb"<%b>(.*?)</%b>" % (tag, tag), page, re.DOTALL)
    return [f"'sha256-{b64encode(sha256(text).digest()).decode()}'" for text in inner]


def _headers(page: bytes) -> tuple[Header, ...]:
    return (
        (b"content-security-policy", _policy(page)),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    )


DOCS: Final = _page("docs.html")
DOCS_HEADERS: Final = _headers(DOCS)
ROOT: Final = _page("root.html")
ROOT_HEADERS: Final = (*_headers(ROOT), (b"vary", b"accept"))
# Kept readable, and sent without its line ends: half the bytes.
OPENAPI: Final = orjson.dumps(orjson.loads(_page("openapi.json")))
