"""What the built-in models say: words only. `scripted_model` makes weights of them, `engine` serves them."""

import hashlib
from pathlib import Path

from attrs import frozen

_SOURCES = ("scripts.py", "vocabulary.py", "scripted_model.py")


@frozen
class Script:
    """One model: its words in each situation, and its size.

    All words of a script differ from each other, because the word just said is all the model remembers.
    """

    name: str
    answer: str = "Hello."
    """Said to any prompt; with `endless`, said over and over."""
    tool_call: tuple[str, ...] = ()
    """The pieces of one JSON object, said instead when the request offers tools.

    The engine lets only calls pass that an offered tool could have. With another tool than this one, the
    model completes the shortest call that is allowed, and fills strings with its answer.
    """
    tool_answer: str = ""
    """Said when the last message is a tool's result."""
    endless: bool = False
    embedding: bool = False
    """Makes vectors instead of words; they are near when texts share words."""
    context: int = 8192
    """Tokens that one conversation can hold, prompt and answer together."""
    layers: int = 1
    """The layers do nothing; they only take time."""

    @property
    def file_name(self) -> str:
        """The name, and a digest of the script and of the code that writes it: a change is a new file."""
        digest = hashlib.sha256(repr(self).encode())
        for source in _SOURCES:
            digest.update(Path(__file__).with_name(source).read_bytes())
        return f"{self.name}-{digest.hexdigest()[:12]}.gguf"


GREETING = Script(
    name="greeting",
    answer=(
        "Hello! I am the demo model built into this gateway: my tiny weights recite one friendly sentence, "
        "so you can see real tokens streaming before connecting your own."
    ),
    tool_call=('{"name":', ' "get_weather",', ' "arguments":', ' {"city":', ' "Paris"}}'),
    tool_answer="Thanks, that tool has replied; its result reached me and we could go on.",
)

# Never says a last word; ends when the context is full. The idle layers slow it down without making the file
# big. Measured on one thread: 1,900 tokens/s at first, about 100 after 3,000 tokens, 4,300 in half a minute;
# minutes until the end, and four streams at once take longer still.
ENDLESS = Script(name="endless", answer="la lo lu le", endless=True, context=16384, layers=32)

EMBED = Script(name="embed", embedding=True, context=2048)
