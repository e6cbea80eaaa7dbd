"""OpenAI's answers, both ways: read from a backend, and written for OpenAI's clients."""

from gateway.formats.openai.errors import read_error
from gateway.formats.openai.reading import (
    ChatReader,
    CompletionReader,
)
from gateway.formats.openai.writing import ChatWriter, write_chat_answer

__all__ = [
    "ChatReader",
    "ChatWriter",
    "CompletionReader",
    "read_error",
    "write_chat_answer",
]
