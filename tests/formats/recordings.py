"""Recordings of real servers: see the README beside each, in tests/golden."""

from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"


def of_ollama(name: str) -> bytes:
    return (GOLDEN / "ollama" / name).read_bytes()


def of_llama_cpp(name: str) -> bytes:
    return (GOLDEN / "llama_cpp" / f"{name}.txt").read_bytes()
