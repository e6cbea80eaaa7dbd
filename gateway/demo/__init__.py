"""The built-in demo: tiny models that recite, and the real llama.cpp engine that serves them."""
