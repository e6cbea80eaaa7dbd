"""OpenAI's protocol, from both ends: the surface that callers speak, and the kind that backends speak."""

from gateway.formats.openai.completions import CompletionWriter, read_completion, write_completion_answer
from gateway.formats.openai.embeddings import (
    CUT,
    read_embeddings,
    read_embeddings_answer,
    write_embeddings,
    write_embeddings_answer,
)
from gateway.formats.openai.errors import read_error
from gateway.formats.openai.reading import ChatReader, CompletionReader
from gateway.formats.openai.requests import (
    STREAMED,
    is_completion,
    read_chat,
    write_chat,
    write_completion,
)
from gateway.formats.openai.writing import ChatWriter, write_chat_answer

__all__ = [
    "CUT",
    "STREAMED",
    "ChatReader",
    "ChatWriter",
    "CompletionReader",
    "CompletionWriter",
    "is_completion",
    "read_chat",
    "read_completion",
    "read_embeddings",
    "read_embeddings_answer",
    "read_error",
    "write_chat",
    "write_chat_answer",
    "write_completion",
    "write_completion_answer",
    "write_embeddings",
    "write_embeddings_answer",
]
