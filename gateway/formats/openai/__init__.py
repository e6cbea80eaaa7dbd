"""OpenAI's protocol, from both ends: the surface that callers speak, and the kind that backends speak."""
