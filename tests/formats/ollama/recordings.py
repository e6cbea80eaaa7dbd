"""The recordings of Ollama: see tests/golden/ollama/README.md."""

from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "golden" / "ollama"


def recording(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()
