"""A secure, multi-tenant API gateway in front of Ollama and OpenAI-compatible servers."""
