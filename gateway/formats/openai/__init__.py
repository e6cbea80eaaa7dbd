"""OpenAI's protocol, from both ends: the surface that callers speak, and the kind that backends speak."""

from gateway.formats.openai.answers import (
    ChatReader,
    ChatWriter,
    CompletionReader,
    read_error,
    write_chat_answer,
)
from gateway.formats.openai.requests import is_completion, read_chat, write_chat, write_completion

__all__ = [
    "ChatReader",
    "ChatWriter",
    "CompletionReader",
    "is_completion",
    "read_chat",
    "read_error",
    "write_chat",
    "write_chat_answer",
    "write_completion",
]
