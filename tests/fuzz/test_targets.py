"""Whatever stands in a request's target: no mutation and no unknown route is ever served (security.md A)."""

import posixpath
import re
from random import Random
from urllib.parse import unquote

from gateway.errors import GatewayError
from gateway.model import Operation
from gateway.rules.endpoints import MUTATIONS, ROUTES, route_of, surface_of
from tests.fuzz.seeds import examples

METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "post", "PULL"]
ROOTS = [
    *(f"/api/{name}".encode() for name in sorted(MUTATIONS)),
    *(b"/api/blobs/sha256:00", b"/v1/models/x/../../api/pull", b"/v1/models/a%2Fb", b"/v1/models/", *ROUTES),
]
PIECES = [
    *rb"/ // %2f %2F %5c \\ . .. /./ /../ ; ;x=1 %00 %20 %09 # %23 %3f ? : @ http://e".split(),
    *b"% %% %g0 api pull".split(),
    *b"%25 %252f %2570 %70 %c0%af %c0%ae %u002f %uff50 %u0070 %e0%80%af %c1%b0 %EF%BC%8F %EF%BD%90".split(),
    *b"%c2%ad %e2%80%8b %0d%0a %E2%85%BC %f0%9d%93%85".split(),
    *(b"\t", b" ", b"\xff", b"\xc2\xa0", b"\x00", b"\x7f"),
]


def target(random: Random) -> bytes:
    """A known path, changed up to five times: pieces put in, letters encoded, flipped or lost."""
    path = random.choice(ROOTS)
    for _ in range(random.randint(0, 5)):
        place = random.randrange(len(path)) if path else 0
        before, letter, behind = path[:place], path[place : place + 1], path[place + 1 :]
        path = random.choice(
            [
                before + random.choice(PIECES) + letter + behind,
                before + random.choice(PIECES) + letter + behind,
                before + b"".join(b"%%%02x" % byte for byte in letter) + behind,
                before + letter.swapcase() + behind,
                before + behind,
                path.replace(b"%", b"%25"),
            ]
        )
    return path


def as_a_lenient_server_reads_it(path: bytes) -> str:
    """Decoded to the end, folded, cleaned: not our own folding, so that one checks the other."""
    text = path.decode("latin-1")
    for _ in range(6):
        text = unquote(text, errors="replace")
    text = re.split(r"[?#]", text)[0].replace("\\", "/").lower()
    return posixpath.normpath(re.sub(r"/+", "/", text))


def is_mutation(path: bytes) -> bool:
    segments = as_a_lenient_server_reads_it(path).split("/")
    return segments[1:2] == ["api"] and len(segments) > 2 and segments[2] in MUTATIONS


def test_no_target_reaches_what_it_must_not():
    """Served is only what stands in the table, byte for byte, and a model's plain name below /v1/models/."""
    for random in examples(20, 60_000):
        path, method = target(random), random.choice(METHODS)
        verdict = route_of(method, path, random.choice([b"", b"a=b", b"/../api/pull", b"%00"]))
        surface_of(path)
        if isinstance(verdict, GatewayError):
            assert verdict.status in (400, 403, 404, 405), path
            continue
        assert not is_mutation(path), path
        if verdict.operation is Operation.MODEL:
            assert method == "GET"
            assert verdict.model is not None
            assert re.fullmatch(r"[\w.:@/-]+", verdict.model, re.ASCII), path
            assert ".." not in verdict.model.split("/"), path
        else:
            methods, route = ROUTES[path]
            assert verdict == route
            assert method in methods


def test_what_a_lenient_server_would_take_for_a_mutation_is_refused():
    """Blocked, or malformed: never merely unknown, which a wider table might serve one day."""
    for random in examples(21, 60_000):
        path = target(random)
        if is_mutation(path):
            verdict = route_of("POST", path)
            assert isinstance(verdict, GatewayError)
            assert verdict.status in (400, 403), path
