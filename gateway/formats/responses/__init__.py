"""OpenAI's Responses API, as a surface: callers speak it, no backend does. Nothing is stored."""

from gateway.formats.responses.requests import read_response
from gateway.formats.responses.writing import ResponseWriter, write_response

__all__ = ["ResponseWriter", "read_response", "write_response"]
