"""Anthropic's Messages API, as a surface: callers speak it, no backend does."""

from gateway.formats.anthropic.requests import read_chat, read_counted
from gateway.formats.anthropic.writing import PING, ChatWriter, write_chat_answer, write_count

__all__ = ["PING", "ChatWriter", "read_chat", "read_counted", "write_chat_answer", "write_count"]
