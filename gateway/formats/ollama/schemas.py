"""JSON Schemas of tools, folded into what Ollama keeps of them.

Of a parameter Ollama reads type, description, enum, items, anyOf, properties and required, and drops the
rest without a word (api/types.go, ToolProperty). What references, combinations and constants say would
be lost, and the model would not know what to write; so it is said in those words here.
"""

from typing import Any, Final
from urllib.parse import unquote

import orjson
from attrs import define

from gateway.model import JsonObject

# A schema without any of these is sent as it is.
_MARKS: Final = (b'"$ref"', b'"oneOf"', b'"allOf"', b'"const"', b'"prefixItems"')
# References may name each other over and over: what a schema grows to has a bound, in parts of this many
# characters. Agents' largest tools have some hundred parts.
_MAX_PARTS: Final = 2_000
_PART_CHARACTERS: Final = 64
_MAX_DEPTH: Final = 64


def folded(schema: JsonObject) -> JsonObject:
    """The parameters of a function, an object with its properties; the same one where nothing has to be done.

    Never raises. A reference that leads back to itself, that leads nowhere or elsewhere than into the
    schema, and what is beyond the bounds, becomes a value of any type.
    """
    text = orjson.dumps(schema)
    if not any(mark in text for mark in _MARKS):
        return schema
    return _as_object(_Folding(schema).fold(schema, ()))


@define
class _Folding:
    root: JsonObject
    left: int = _MAX_PARTS
    depth: int = 0

    def fold(self, value: Any, refs: tuple[str, ...]) -> JsonObject:
        """One schema; `refs` are the references that led here."""
        # A schema may be `true`: anything.
        if not isinstance(value, dict) or self.left <= 0 or self.depth >= _MAX_DEPTH:
            return {}
        description = value.get("description")
        self.left -= 1 + (len(description) // _PART_CHARACTERS if isinstance(description, str) else 0)
        self.depth += 1
        if isinstance(ref := value.get("$ref"), str):
            kept = self._referred(ref, value, refs)
        else:
            kept = self._combined(self._plain(value, refs), value, refs)
        self.depth -= 1
        return kept

    def _referred(self, ref: str, value: JsonObject, refs: tuple[str, ...]) -> JsonObject:
        """What stands beside a reference, a description mostly, goes before what it leads to."""
        beside = self.fold({name: inner for name, inner in value.items() if name != "$ref"}, refs)
        return beside if ref in refs else _merged(beside, self.fold(self._target(ref), (*refs, ref)))

    def _target(self, ref: str) -> Any:
        if not ref.startswith("#"):
            return None
        target: Any = self.root
        for part in unquote(ref[1:]).split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            target = target.get(name) if isinstance(target, dict) else None
        return target

    def _plain(self, value: JsonObject, refs: tuple[str, ...]) -> JsonObject:
        kept: JsonObject = {}
        if types := [kind for kind in _types(value) if isinstance(kind, str)]:
            kept["type"] = _one_or_all(types)
        if isinstance(value.get("description"), str):
            kept["description"] = value["description"]
        if isinstance(value.get("enum"), list):
            kept["enum"] = value["enum"]
        elif "const" in value:
            kept["enum"] = [value["const"]]
        if isinstance(value.get("properties"), dict):
            kept["properties"] = {name: self.fold(inner, refs) for name, inner in value["properties"].items()}
        if isinstance(value.get("required"), list):
            kept["required"] = [name for name in value["required"] if isinstance(name, str)]
        if items := self._items(value, refs):
            kept["items"] = items
        return kept

    def _items(self, value: JsonObject, refs: tuple[str, ...]) -> JsonObject:
        """Those of a tuple are any of its places."""
        places = value.get("prefixItems", value.get("items"))
        if isinstance(places, list) and places:
            return _any_of([self.fold(place, refs) for place in places])
        return self.fold(value.get("items"), refs)

    def _combined(self, kept: JsonObject, value: JsonObject, refs: tuple[str, ...]) -> JsonObject:
        for inner in _list_of(value.get("allOf")):
            kept = _merged(kept, self.fold(inner, refs))
        for name in ("anyOf", "oneOf"):
            if choices := [self.fold(inner, refs) for inner in _list_of(value.get(name))]:
                kept = _merged(kept, _any_of(choices))
        return kept


def _any_of(choices: list[JsonObject]) -> JsonObject:
    """One of these; of plain types, and of one thing or null, in a single schema with a list of types."""
    telling = [choice for choice in choices if choice != {"type": "null"}]
    types = [kind for choice in choices for kind in _types(choice)]
    if len(telling) == 1 and _types(telling[0]):
        return telling[0] | {"type": _one_or_all(types)}
    if all(choice.keys() == {"type"} for choice in choices):
        return {"type": _one_or_all(types)}
    return {"anyOf": choices}


def _merged(one: JsonObject, other: JsonObject) -> JsonObject:
    """Both hold. Where both say the same thing differently, the first does; properties are those of both."""
    both = other | one
    for name in ("properties", "required"):
        if name in one and name in other:
            both[name] = _union(other[name], one[name])
    return both


def _union(one: Any, other: Any) -> Any:
    return one | other if isinstance(one, dict) else list(dict.fromkeys([*other, *one]))


def _as_object(schema: JsonObject) -> JsonObject:
    """The parameters of a function have names: of several sets of them, it is those of all."""
    choices = schema.pop("anyOf", [])
    for choice in choices:
        # What only one of them demands is not demanded.
        optional = {name: inner for name, inner in choice.items() if name == "properties"}
        schema = _merged(schema, optional)
    demanded = [set(choice.get("required", ())) for choice in choices]
    if shared := sorted(set.intersection(*demanded)) if demanded else []:
        schema = _merged(schema, {"required": shared})
    return schema | {"type": "object", "properties": schema.get("properties", {})}


def _types(schema: JsonObject) -> list[Any]:
    kinds = schema.get("type", [])
    return kinds if isinstance(kinds, list) else [kinds]


def _one_or_all(types: list[Any]) -> Any:
    distinct = [kind for number, kind in enumerate(types) if kind not in types[:number]]
    return distinct[0] if len(distinct) == 1 else distinct


def _list_of(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
