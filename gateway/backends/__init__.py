"""Where the models are: adapters that speak to Ollama and to OpenAI-compatible servers."""
