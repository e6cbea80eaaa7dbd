"""Anthropic's Messages API, as a surface: callers speak it, no backend does."""

from gateway.formats.anthropic.requests import read_chat
from gateway.formats.anthropic.writing import PING, ChatWriter, write_chat_answer

__all__ = ["PING", "ChatWriter", "read_chat", "write_chat_answer"]
