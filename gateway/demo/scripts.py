"""What the built-in models say. Pure words: the weights are made in `scripted_model`, the engine in `engine`."""

import hashlib
from pathlib import Path

from attrs import evolve, frozen

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
    """Pieces of one JSON object, said instead when the request offers a tool of the name `tool`."""
    tool: str = ""
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
    tool="get_weather",
    tool_call=('{"name":', ' "get_weather",', ' "arguments":', ' {"city":', ' "Paris"}}'),
    tool_answer="Thanks, that tool has replied; its result reached me and we could go on.",
)

# A line of 64 narrow layers costs about 1.5 ms per token on one thread, so that a stream lasts
# half a minute without a model file of a hundred megabytes.
ENDLESS = Script(name="endless", answer="la lo lu le", endless=True, context=16384, layers=64)

EMBED = evolve(Script(name="embed"), embedding=True, context=2048)
