"""gateway.formats.backend_errors: a backend's words, said to callers."""

import pytest

from gateway.formats.backend_errors import tame

TAMED = [
    pytest.param('Post "http://127.0.0.1:39741/completion": EOF', 'Post "… EOF', id="a URL"),
    pytest.param(
        "dial tcp 10.0.0.7:11434: connect: refused", "dial tcp …: connect: refused", id="an address"
    ),
    pytest.param("dial tcp [::1]:11434: refused", "dial tcp …: refused", id="an address of IPv6"),
    pytest.param("lookup ollama-2.internal:11434 failed", "lookup … failed", id="a name with a port"),
    pytest.param("open /root/.ollama/models/blobs/sha256-0a: denied", "open …: denied", id="a path"),
    pytest.param("open C:\\models\\x.gguf denied", "open … denied", id="a path of Windows"),
    pytest.param("blob sha256:" + "0a" * 32 + " is bad", "blob … is bad", id="a digest"),
    pytest.param("segfault at 0x7ffdeadbeef", "segfault at …", id="a pointer"),
    pytest.param("panic: x\n\ngoroutine 1 [running]:\nmain.go", "panic: x", id="a stack trace"),
    pytest.param("a\tb\x1b[31m\x00c", "a b [31m c", id="control characters"),
    pytest.param("x" * 1_000, "x" * 300 + "…", id="endless words"),
    pytest.param("model llama3.1:70b and/or 50/50", "model llama3.1:70b and/or 50/50", id="harmless words"),
]


@pytest.mark.parametrize(("text", "expected"), TAMED)
def test_a_backends_words_lose_its_insides(text, expected):
    """No host, path, digest or stack of ours reaches a caller."""
    assert tame(text) == expected
