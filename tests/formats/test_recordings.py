"""Recordings say where they come from: each file of tests/golden is told of in the README beside it."""

import pytest

from tests.formats.recordings import GOLDEN
from tests.golden.llama_cpp.record import RECORDINGS

FOLDERS = sorted(path for path in GOLDEN.iterdir() if path.is_dir() and path.name != "__pycache__")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_folder_of_recordings_names_its_origin(folder):
    assert "a real " in (folder / "README.md").read_text()


def test_each_recording_of_ollama_has_its_origin_beside_it():
    """Observed on the wire, or written after the server's source: that is told apart for each."""
    lines = (GOLDEN / "ollama" / "README.md").read_text().splitlines()
    origins = dict(line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| `"))
    files = {
        f"`{path.name}`" for path in (GOLDEN / "ollama").iterdir() if path.suffix in (".json", ".ndjson")
    }

    assert set(origins) == files
    assert all(
        any(word in origin for word in ("observed", "describe", "documented", "same"))
        for origin in origins.values()
    )


def test_each_recording_of_llama_cpp_can_be_recorded_anew():
    """Its request stands in record.py."""
    files = {path.stem for path in (GOLDEN / "llama_cpp").glob("*.txt")}

    assert set(RECORDINGS) == files
