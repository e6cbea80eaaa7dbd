"""How big a prompt is, whichever call brings it."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounting import PromptSize
from gateway.formats.chat import (
    ChatCall,
    CompletionCall,
    EmbedCall,
    Format,
    GenerateCall,
    Image,
    Message,
    Sampling,
    Tool,
    ToolCall,
)
from gateway.formats.sizes import runs_of, size_of

IMAGE = Image("iVBORw0KGgo=", "image/png")
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}}

REFERRING = {
    "type": "object",
    "properties": {name: {"$ref": "#/$defs/w"} for name in "abcdef"},
    "$defs": {"w": WEATHER},
}
REFERRED = {"type": "object", "properties": dict.fromkeys("abcdef", WEATHER)}


def chat(*messages: Message, **fields) -> ChatCall:
    return ChatCall("tiny", messages, stream=True, **fields)


def generate(prompt: str = "", **fields) -> GenerateCall:
    return GenerateCall("tiny", prompt, stream=True, **fields)


@pytest.mark.parametrize(
    ("call", "size"),
    [
        pytest.param(chat(), PromptSize(), id="nothing"),
        pytest.param(
            chat(Message("system", "Be brief."), Message("user", "Hello!")),
            PromptSize(text_bytes=15, messages=2),
            id="texts",
        ),
        pytest.param(
            chat(Message("user", "Grüße, 東京 🗼")),
            PromptSize(text_bytes=20, messages=1),
            id="bytes of UTF-8",
        ),
        pytest.param(
            chat(Message("user", "What?", images=(IMAGE, IMAGE))),
            PromptSize(text_bytes=5, messages=1, images=2),
            id="images by number",
        ),
        pytest.param(
            chat(Message("assistant", "Yes.", thinking="Hm.")),
            PromptSize(text_bytes=7, messages=1),
            id="thinking that is sent back",
        ),
        pytest.param(
            chat(Message("tool", "21 °C", tool_call_id="call00001", tool_name="weather")),
            PromptSize(text_bytes=22, messages=1),
            id="a tool's answer, with its id and name",
        ),
        pytest.param(
            chat(Message("assistant", tool_calls=(ToolCall("c1", "weather", {"city": "Köln"}),))),
            PromptSize(schema_bytes=88 + 2 + 7 + len('{"city":"Köln"}'.encode()), messages=1),
            id="a call is JSON in a frame",
        ),
        pytest.param(
            chat(tools=(Tool("weather", "Look out.", WEATHER),)),
            PromptSize(schema_bytes=88 + 7 + 9 + len(json.dumps(WEATHER, separators=(",", ":")))),
            id="a tool too",
        ),
        pytest.param(
            chat(tools=(Tool("f", parameters=REFERRING),)),
            PromptSize(schema_bytes=88 + 1 + len(json.dumps(REFERRED, separators=(",", ":")))),
            id="a tool whose schema grows where it is folded",
        ),
        pytest.param(
            chat(format=Format(WEATHER)),
            PromptSize(schema_bytes=len(json.dumps(WEATHER, separators=(",", ":")))),
            id="a schema of the output",
        ),
        pytest.param(chat(format=Format()), PromptSize(), id="any object: no schema"),
        pytest.param(
            chat(Message("user", "Hello!"), sampling=Sampling(stop=("\n",)), keep_alive=5.0),
            PromptSize(text_bytes=6, messages=1),
            id="what no model reads is not counted",
        ),
        pytest.param(
            chat(Message("user", "What?", images=(IMAGE,)), format=Format(WEATHER), n=3),
            PromptSize(
                text_bytes=15,
                schema_bytes=3 * len(json.dumps(WEATHER, separators=(",", ":"))),
                messages=3,
                images=3,
                prompts=3,
                templates=3,
            ),
            id="as often as it is sent",
        ),
        pytest.param(generate("Hello!"), PromptSize(text_bytes=6, messages=1), id="generate"),
        pytest.param(
            generate("def f(", system="Be brief.", suffix="return"),
            PromptSize(text_bytes=21, messages=3),
            id="generate: system and suffix",
        ),
        pytest.param(
            generate("And?", context=(1, 2, 3), images=(IMAGE,)),
            PromptSize(text_bytes=4, messages=1, images=1, tokens=3),
            id="generate: tokens of a former answer",
        ),
        pytest.param(
            generate(format=Format(WEATHER)),
            PromptSize(schema_bytes=len(json.dumps(WEATHER, separators=(",", ":")))),
            id="generate: a schema of the output",
        ),
        pytest.param(
            CompletionCall("tiny", ("Grüße", (1, 2, 3)), stream=True, n=2, suffix="end"),
            PromptSize(
                text_bytes=2 * (7 + 2 * 3), messages=8, tokens=2 * (3 + 2 * 2), prompts=4, templates=4
            ),
            id="completions: each prompt as often as it is sent",
        ),
        pytest.param(
            CompletionCall("tiny", ("Hi",), stream=True, raw=True, format=Format(WEATHER)),
            PromptSize(
                text_bytes=2,
                schema_bytes=len(json.dumps(WEATHER, separators=(",", ":"))),
                messages=1,
                tokens=2,
                templates=0,
            ),
            id="completions: raw has no template",
        ),
        pytest.param(
            EmbedCall("tiny", ("Grüße", "x", (1, 2, 3))),
            PromptSize(text_bytes=8, tokens=3 + 3 * 2, prompts=3, templates=0),
            id="inputs: no template, but a token before and behind each",
        ),
    ],
)
def test_the_size_of_a_prompt(call, size):
    """All that a template can put before the model."""
    assert size_of(call) == size


@pytest.mark.parametrize(
    ("call", "size"),
    [
        pytest.param(chat(Message("user", "Hi")), PromptSize(text_bytes=902, messages=4), id="chat"),
        pytest.param(generate("Hi"), PromptSize(text_bytes=902, messages=4), id="generate"),
        pytest.param(
            generate("Hi", raw=True),
            PromptSize(text_bytes=2, messages=1, tokens=2, templates=0),
            id="raw: as it is",
        ),
        pytest.param(
            CompletionCall("tiny", ("Hi",), stream=True, n=2),
            PromptSize(text_bytes=2 * 902, messages=2 * 4, tokens=4, prompts=2, templates=2),
            id="before each answer",
        ),
        pytest.param(
            EmbedCall("tiny", ("Hi",)),
            PromptSize(text_bytes=2, tokens=2, templates=0),
            id="a vector of the input alone",
        ),
    ],
)
def test_what_the_model_says_first_is_counted(call, size):
    """Its system prompt and examples, which Ollama puts before what the caller sends."""
    assert size_of(call, own=PromptSize(text_bytes=900, messages=3)) == size


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)


# What is longer in another of Unicode's forms, among letters that are not.
ODD = st.text(st.sampled_from("aé東Ａ가ﷺ㌀½ΐᾂ\u0958\U0001d15e\U0001d160\ufb2c\u0301"), max_size=60)


@given(texts=st.lists(TEXTS | ODD, max_size=5))
def test_no_byte_of_a_text_is_missed(texts):
    """A token is never less than a byte of the form that a tokenizer brings a text into: all rests on it."""
    size = size_of(chat(*(Message("user", text) for text in texts)))

    for form in ("NFC", "NFKC"):
        assert size.text_bytes >= sum(len(unicodedata.normalize(form, text).encode()) for text in texts)
    assert size.text_bytes >= len("".join(texts).encode())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        pytest.param("Grüße, 東京 가 🗼", 24, id="as it is"),
        pytest.param("ﷺ", 33, id="a ligature, written out"),
        pytest.param("\U0001d160", 12, id="a note, taken apart"),
        pytest.param("ＡＢＣ", 9, id="never the shorter form"),
    ],
)
def test_a_text_is_measured_in_its_longest_form(text, size):
    """Or three bytes would have been ten tokens. In tools and calls likewise."""
    calls = (ToolCall("", "", {"": text}),)

    assert size_of(chat(Message("user", text))).text_bytes == size
    assert size_of(chat(Message("assistant", tool_calls=calls))).schema_bytes == 88 + len('{"":""}') + size


def test_an_input_is_measured_without_its_accents_too():
    """BERT's tokenizers take them off: two bytes are three characters then."""
    assert size_of(EmbedCall("tiny", ("ΐ",))).text_bytes == 3


JSON = st.dictionaries(TEXTS, TEXTS | st.integers(-(2**53), 2**53) | st.booleans(), max_size=4)


@given(arguments=JSON)
def test_go_and_python_write_a_call_in_twice_its_size(arguments):
    """Go escapes <, > and &; Python puts spaces. The bound takes these bytes twice."""
    python = json.dumps(arguments, ensure_ascii=False)
    go = json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        go = go.replace(character, f"\\u{ord(character):04x}")

    size = size_of(chat(Message("assistant", tool_calls=(ToolCall("", "", arguments),))))

    assert size.schema_bytes >= len(go.encode())
    assert 2 * size.schema_bytes >= len(python.encode())


@pytest.mark.parametrize(
    ("call", "kind", "runs"),
    [
        pytest.param(chat(), "ollama", 1, id="a chat"),
        pytest.param(chat(n=3), "openai", 3, id="several answers"),
        pytest.param(chat(n=3, format=Format()), "ollama", 6, id="several answers, each after thinking"),
        pytest.param(chat(think=True), "ollama", 1, id="thinking alone"),
        pytest.param(chat(format=Format(), think=True), "ollama", 2, id="thinking, then the format"),
        pytest.param(chat(format=Format()), "ollama", 2, id="the model may think by itself"),
        pytest.param(chat(format=Format(), think=False), "ollama", 1, id="told not to think"),
        pytest.param(chat(format=Format(), think=True), "openai", 1, id="OpenAI-like servers run once"),
        pytest.param(generate(format=Format()), "ollama", 1, id="generate runs once"),
        pytest.param(
            CompletionCall("tiny", ("x", "y"), stream=True, n=3), "openai", 6, id="each prompt, n times"
        ),
        pytest.param(EmbedCall("tiny", ("x",)), "ollama", 0, id="vectors are not written token by token"),
    ],
)
def test_how_often_a_backend_generates(call, kind, runs):
    """Ollama's chat handler runs again with the grammar after a model has thought."""
    assert runs_of(call, kind, None) == runs


@pytest.mark.parametrize(("capabilities", "runs"), [({"completion", "thinking"}, 2), ({"completion"}, 1)])
def test_a_model_that_cannot_think_generates_once(capabilities, runs):
    """So nothing is reserved for what it never does."""
    assert runs_of(chat(format=Format()), "ollama", frozenset(capabilities)) == runs
