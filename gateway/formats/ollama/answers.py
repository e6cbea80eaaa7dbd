"""Ollama's answers, both ways: read from a backend, and written for Ollama's clients."""

from gateway.formats.ollama.errors import read_error
from gateway.formats.ollama.reading import ChatReader, GenerateReader, read_chat_answer, read_generate_answer
from gateway.formats.ollama.writing import (
    ChatWriter,
    GenerateWriter,
    write_chat_answer,
    write_generate_answer,
    write_load_answer,
)

__all__ = [
    "ChatReader",
    "ChatWriter",
    "GenerateReader",
    "GenerateWriter",
    "read_chat_answer",
    "read_error",
    "read_generate_answer",
    "write_chat_answer",
    "write_generate_answer",
    "write_load_answer",
]
