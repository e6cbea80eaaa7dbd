"""What becomes of each field of each route, found by trying it out: docs/API.md's tables, and /openapi.json.

    python -m scripts.api_fields

Each field is given a value that asks for something, and the request that goes to a backend is compared with
the one without it. So the tables say what the code does; a test insists that they are up to date.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from attrs import evolve, frozen

from gateway.errors import InvalidRequest, UnsupportedField
from gateway.formats.chat import Call
from gateway.formats.fields import Fields
from gateway.formats.parts import parts_of
from gateway.formats.translation import READERS, upstream_of
from gateway.model import JsonObject, Operation
from gateway.rules.endpoints import ROUTES
from scripts.api_inner import inner_fates
from scripts.api_samples import DONE_HERE, LEAST, SAMPLES, Sample
from scripts.api_sent import table

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs" / "API.md"
KINDS: Final = ("ollama", "openai")
BEGIN: Final = "<!-- fields: written by `python -m scripts.api_fields` -->"
END: Final = "<!-- end of fields -->"
SENT_TOLD: Final = (
    "These fields, built anew for each request, and no others: what a caller writes elsewhere reaches no\n"
    "backend. Below `parameters`, `arguments`, `format`, `schema` and `json_schema` stands what the caller\n"
    "wrote there, and `logit_bias` has tokens by number. Ollama is sent the `parameters` of tools folded\n"
    "into those words of JSON Schema that it reads."
)
# Fields of `thinking`, which is read as if it always stood there.
OWN: Final = frozenset({"budget_tokens", "display", "type"})
# A value that is longer than what the answer is asked for tells nothing.
_MOST_PATHS: Final = 3


@frozen
class Fate:
    """What becomes of a field, by kind of backend."""

    name: str
    value: Any
    by_kind: tuple[str, ...]


def path_of(operation: Operation) -> str:
    return next(path.decode() for path, (_, route) in ROUTES.items() if route.operation is operation)


def known_fields(operation: Operation) -> set[str]:
    """The names that the reader of this route knows, as it names them when it looks for look-alikes."""
    known: set[str] = set()

    def noted(fields: Fields, names: frozenset[str]) -> None:
        known.update(fields.path(name) for name in names)

    # A request of usual fields alone has nothing that could be a look-alike of others.
    body = LEAST[operation] | {"unusual": 1}
    if "options.seed" in SAMPLES.get(operation, ()):
        body["options"] = {"seed": 1}
    with patch.multiple(Fields, refuse_look_alikes=noted, refuse_unknown=noted):
        READERS[operation](body)
    return {name for name in known if "[" not in name and name.partition(".")[0] in ("options", name)} - OWN


def fates(operation: Operation) -> list[Fate]:
    return [_fate(operation, name, given) for name, given in sorted(SAMPLES[operation].items())]


def _fate(operation: Operation, name: str, given: Any) -> Fate:
    sample = given if isinstance(given, Sample) else Sample(given)
    without = LEAST[operation] | sample.beside
    try:
        call = READERS[operation](_with(without, name, sample.value))
    except InvalidRequest:
        return Fate(name, sample.value, ("400",) * len(KINDS))
    before = READERS[operation](without)
    if name.rpartition(".")[2] in call.dropped:
        return Fate(name, sample.value, ("dropped, named",) * len(KINDS))
    return Fate(name, sample.value, tuple(_told(name, before, call, kind) for kind in KINDS))


def _with(body: JsonObject, name: str, value: Any) -> JsonObject:
    parent, _, child = name.rpartition(".")
    return body | ({parent: {child: value}} if parent else {name: value})


def _told(name: str, before: Call, after: Call, kind: str) -> str:
    if name == "model":
        return "looked up"
    try:
        sent = _sent(after, kind)
    except UnsupportedField:
        return "400"
    paths = list(_changed("", _sent(before, kind), sent))
    if not paths:
        is_done = name in DONE_HERE and evolve(after, dropped=before.dropped) != before
        return "done here" if is_done else "ignored"
    shown = sorted({path for path in paths if path != name})[:_MOST_PATHS]
    if name in paths or not shown:
        return "sent"
    return "sent as " + ", ".join(f"`{path}`" for path in shown)


def _sent(call: Call, kind: str) -> JsonObject:
    """What goes to a backend at last: where a prompt is too long, and may be cut, that is asked for then."""
    upstream = upstream_of(kind, parts_of(call)[0], "m")
    request = upstream.or_cut or upstream.request
    return json.loads(json.dumps(request.body))  # type: ignore[no-any-return]


def _changed(path: str, before: Any, after: Any) -> Iterator[str]:
    """Where the two differ: fields, and of Ollama's options which."""
    if path in ("", "options"):
        before, after = before or {}, after or {}
        for name in before.keys() | after.keys():
            inner = f"{path}.{name}" if path else name
            yield from _changed(inner, before.get(name), after.get(name))
    elif before != after:
        yield path


# ── the tables ───────────────────────────────────────────────────────────────────────────


def tables() -> str:
    """One table a route, in the order of the routes."""
    written = [BEGIN, ""]
    for operation in SAMPLES:
        written += [f"### POST {path_of(operation)}", "", "| Field | `ollama` | `openai` |", "|---|---|---|"]
        written += [f"| `{fate.name}` | {' | '.join(fate.by_kind)} |" for fate in fates(operation)]
        written += [f"| `{name}` | {' | '.join(by_kind)} |" for name, by_kind in inner_fates(operation)]
        written.append("")
    return "\n".join([*written, "## What backends are sent", "", SENT_TOLD, "", table(), "", END])


def page_with_tables(page: str) -> str:
    before, _, rest = page.partition(BEGIN)
    return before + tables() + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page_with_tables(PAGE.read_text()))
