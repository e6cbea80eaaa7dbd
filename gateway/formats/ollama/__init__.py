"""Ollama's native wire, as a surface and as a kind of backend."""

from gateway.formats.ollama.embeddings import (
    read_embed,
    read_embed_answer,
    read_embeddings,
    write_embed,
    write_embed_answer,
    write_embeddings_answer,
)
from gateway.formats.ollama.errors import read_error
from gateway.formats.ollama.reading import ChatReader, GenerateReader, read_chat_answer, read_generate_answer
from gateway.formats.ollama.requests import CUT, read_chat, read_generate, write_chat, write_generate
from gateway.formats.ollama.writing import (
    ChatWriter,
    GenerateWriter,
    write_chat_answer,
    write_generate_answer,
    write_load_answer,
)

__all__ = [
    "CUT",
    "ChatReader",
    "ChatWriter",
    "GenerateReader",
    "GenerateWriter",
    "read_chat",
    "read_chat_answer",
    "read_embed",
    "read_embed_answer",
    "read_embeddings",
    "read_error",
    "read_generate",
    "read_generate_answer",
    "write_chat",
    "write_chat_answer",
    "write_embed",
    "write_embed_answer",
    "write_embeddings_answer",
    "write_generate",
    "write_generate_answer",
    "write_load_answer",
]
