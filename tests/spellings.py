"""Every way that we know to write a route which changes models, so that a later parser might still find it.

Rules test them one by one; the end-to-end tests send them over a socket. From security.md A and from what
Ollama's router was measured to fold (reference/ollama-api.md 1.1).
"""

BLOCKED_PATHS = {
    "pull": b"/api/pull",
    "push": b"/api/push",
    "create": b"/api/create",
    "copy": b"/api/copy",
    "delete": b"/api/delete",
    "blob": b"/api/blobs/sha256:29fdb92e57cf0827ded04ae6461b5931d01fa595843f55d36f5b275a52087dd2",
    "blobs": b"/api/blobs",
}

SPELLINGS = {
    "upper case": b"/API/PULL",
    "mixed case": b"/Api/Pull",
    "encoded letter": b"/api/%70ull",
    "encoded prefix": b"/%61pi/pull",
    "encoded slash": b"/api%2fpull",
    "encoded slash, upper case": b"/api%2Fdelete",
    "leading encoded slash": b"/%2fapi/pull",
    "encoded twice": b"/api/%2570ull",
    "encoded slash twice": b"/api%252fpull",
    "encoded three times": b"/api/%252570ull",
    "double slash in front": b"//api/pull",
    "double slash inside": b"/api//pull",
    "three slashes": b"///api/pull",
    "trailing slash": b"/api/pull/",
    "trailing encoded slash": b"/api/pull%2f",
    "trailing dot segment": b"/api/pull/.",
    "trailing dot": b"/api/pull.",
    "dot segment": b"/api/./pull",
    "dot segments through another route": b"/v1/models/../../api/pull",
    "encoded dot segments": b"/v1/models/%2e%2e/%2e%2e/api/pull",
    "dot segment within": b"/api/chat/../pull",
    "backslash": b"/api\\pull",
    "encoded backslash": b"/api%5cpull",
    "path parameter": b"/api/pull;x=1",
    "path parameter in front": b"/api;x/pull",
    "encoded nul": b"/api/pull%00",
    "encoded space": b"/api/pull%20",
    "encoded newline": b"/api/pull%0d%0a",
    "fragment": b"/api/pull#",
    "encoded question mark": b"/api/pull%3Fx",
    "full-width letters": b"/api/%EF%BD%90ull",
    "overlong slash": b"/api%c0%afpull",
    "IIS escape": b"/api%u002fpull",
    "absolute form": b"http://evil.example/api/pull",
    "absolute form, upper case": b"HTTP://127.0.0.1:11434/API/delete",
    "below a mutation": b"/api/pull/anything",
}
