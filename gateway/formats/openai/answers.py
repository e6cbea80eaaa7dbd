"""OpenAI's answers, both ways: read from a backend, and written for OpenAI's clients."""

from gateway.formats.openai.errors import read_error
from gateway.formats.openai.reading import (
    ChatReader,
    CompletionReader,
    read_chat_answer,
    read_completion_answer,
)
from gateway.formats.openai.writing import ChatWriter, write_chat_answer

__all__ = [
    "ChatReader",
    "ChatWriter",
    "CompletionReader",
    "read_chat_answer",
    "read_completion_answer",
    "read_error",
    "write_chat_answer",
]
