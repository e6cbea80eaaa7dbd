"""Ollama's native wire, as a surface and as a kind of backend."""
