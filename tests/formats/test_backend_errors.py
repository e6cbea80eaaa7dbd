"""gateway.formats.backend_errors: a backend's words, said to callers."""

import pytest

from gateway.formats.backend_errors import Complaint, complaint_of, tame

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


COMPLAINTS = [
    pytest.param("boom", Complaint("boom"), id="a sentence"),
    pytest.param("x" * 3_000, Complaint("x" * 2_000), id="endless words"),
    pytest.param(
        {"message": "boom", "type": "t", "code": 400, "n_prompt_tokens": 9, "n_ctx": 8},
        Complaint("boom", "t", 400, 9, 8),
        id="llama.cpp's",
    ),
    pytest.param(
        {"code": "context_length_exceeded"}, Complaint(code="context_length_exceeded"), id="OpenAI's"
    ),
    pytest.param(
        {"message": 1, "type": [], "code": True, "n_prompt_tokens": -1, "n_ctx": "8"},
        Complaint(),
        id="fields of wrong types",
    ),
    pytest.param(None, Complaint(), id="nothing"),
    pytest.param(["boom"], Complaint(), id="a list"),
]


@pytest.mark.parametrize(("said", "complaint"), COMPLAINTS)
def test_a_complaint_is_read_as_far_as_it_goes(said, complaint):
    """It comes from a server that has just failed."""
    assert complaint_of(said) == complaint
