"""The model files: written once, whole, and anew when their words change."""

from pathlib import Path

import attrs
import pytest

from gateway.demo import engine, scripted_model, scripts
from gateway.demo.engine import EngineFailed
from gateway.demo.scripts import Script


@pytest.mark.parametrize("script", [scripts.GREETING, scripts.ENDLESS, scripts.EMBED], ids=lambda s: s.name)
def test_a_model_is_a_small_file(script: Script, tmp_path: Path):
    """Less than two megabytes, and nothing unfinished beside it."""
    path = tmp_path / "new directory" / script.file_name

    scripted_model.write(script, path)

    assert path.read_bytes()[:4] == b"GGUF"
    assert path.stat().st_size < 2_000_000
    assert list(path.parent.iterdir()) == [path]


def test_the_same_script_gives_the_same_bytes(tmp_path: Path):
    """Nothing random or dated is in it."""
    for name in ("one", "two"):
        scripted_model.write(scripts.EMBED, tmp_path / name)

    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_an_unchanged_script_reuses_its_file(tmp_path: Path):
    """The second engine writes nothing."""
    first = engine.scripted(scripts.GREETING, tmp_path, tmp_path / "log")
    written = Path(first.serving.model).stat()

    second = engine.scripted(scripts.GREETING, tmp_path, tmp_path / "log")

    assert second.serving == first.serving
    assert Path(second.serving.model).stat() == written


def test_a_changed_script_is_another_file():
    """The name holds a digest of the words and of the code that writes them."""
    changed = attrs.evolve(scripts.GREETING, answer="Good evening.")

    assert changed.file_name != scripts.GREETING.file_name


def test_a_script_that_repeats_a_word_is_refused(tmp_path: Path):
    """The word just said is all the model remembers."""
    script = Script(name="echo", answer="so it goes and there it ends")

    with pytest.raises(ValueError, match="'echo' repeats '▁it'"):
        scripted_model.write(script, tmp_path / "model")

    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path):
    """Also to root, hence a file in the directory's place."""
    (tmp_path / "models").write_text("")

    with pytest.raises(EngineFailed) as caught:
        engine.scripted(scripts.GREETING, tmp_path / "models", tmp_path / "log")

    assert caught.value.reason.startswith("The model 'greeting' could not be written to")
