"""gateway.cli.env_file: one setting changes, and nothing else of the file."""

import errno
import io
import os
import stat
import threading
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.env_file import NotWritten, changed, with_setting

NAME = "OLLAMA_BACKENDS"
NEW = "a=http://a:1;slots=2,http://b:1"

FILES = [
    pytest.param("", f"{NAME}={NEW}\n", id="an empty file"),
    pytest.param("A=1", f"A=1\n{NAME}={NEW}\n", id="no line end at the end"),
    pytest.param(f"{NAME}=x\nA=1\n", f"{NAME}={NEW}\nA=1\n", id="a plain value"),
    pytest.param(f"{NAME}='x'\n", f"{NAME}='{NEW}'\n", id="single quotes"),
    pytest.param(f'export {NAME}="x" # ours\n', f'export {NAME}="{NEW}" # ours\n', id="all at once"),
    pytest.param(f"  {NAME} = x  # ours\n", f"  {NAME} = {NEW}  # ours\n", id="blanks and a comment"),
    pytest.param(f"{NAME}=\nA=1\n", f"{NAME}={NEW}\nA=1\n", id="no value"),
    pytest.param(f"{NAME}\nA=1\n", f"{NAME}={NEW}\nA=1\n", id="a bare name"),
    pytest.param(f"{NAME}=x\r\nA=1\r\n", f"{NAME}={NEW}\r\nA=1\r\n", id="line ends of Windows"),
    pytest.param(f"{NAME}=x\n{NAME}=y\n", f"{NAME}=x\n{NAME}={NEW}\n", id="twice: the last one is read"),
    pytest.param(
        f"# about\n#{NAME}=http://x\nA=1\n",
        f"# about\n#{NAME}=http://x\n{NAME}={NEW}\nA=1\n",
        id="below the one that is commented out",
    ),
    pytest.param(
        f'NOTE="of two lines:\n{NAME}=x\n"\nA=1\n',
        f'NOTE="of two lines:\n{NAME}=x\n"\nA=1\n{NAME}={NEW}\n',
        id="inside another value it is none",
    ),
    pytest.param(f"X{NAME}=x\n", f"X{NAME}=x\n{NAME}={NEW}\n", id="a longer name is another one"),
    pytest.param(f"\ufeff{NAME}=x\n", f"\ufeff{NAME}={NEW}\n", id="a byte order mark"),
]


@pytest.mark.parametrize(("before", "after"), FILES)
def test_only_the_value_changes(before: str, after: str):
    """Comments, order, quotes and line ends are the operator's; doing it twice changes nothing more."""
    assert with_setting(before, NAME, NEW) == after
    assert with_setting(after, NAME, NEW) == after


LINES = st.sampled_from(
    [
        "A=1",
        "# c",
        "",
        f"{NAME}=x",
        f"export {NAME}='y'",
        f"#{NAME}=z",
        'B="1\n2"',
        "broken '",
        f"{NAME}=q # c",
    ]
)


@given(st.lists(LINES, max_size=6))
def test_what_was_written_is_what_is_read(lines: list[str]):
    """By the reader of the gateway itself; all other names keep their values."""
    text = "\n".join(lines) + "\n"

    before, after = read(text), read(with_setting(text, NAME, NEW))

    assert after.pop(NAME) == NEW
    before.pop(NAME, None)
    assert after == before


def read(text: str) -> dict[str, str | None]:
    return dict(dotenv_values(stream=io.StringIO(text), interpolate=False))


def test_mode_and_bytes_stay(tmp_path: Path):
    """Also bytes that are no text."""
    path = tmp_path / ".env"
    path.write_bytes(b"# caf\xe9\nA=1\n")
    path.chmod(0o640)

    changed(path, lambda text: with_setting(text, NAME, NEW))

    assert path.read_bytes() == b"# caf\xe9\nA=1\n" + f"{NAME}={NEW}\n".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == [".env"], "nothing is left behind"


def test_a_new_file_is_its_owners_alone(tmp_path: Path):
    """It may come to hold secrets."""
    changed(tmp_path / ".env", lambda _: "A=1\n")

    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_the_owner_stays(tmp_path: Path):
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    os.chown(path, 12345, 54321)

    changed(path, lambda text: text + "B=2\n")

    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_a_link_stays_a_link(tmp_path: Path):
    """What it leads to is replaced, where that is."""
    real = tmp_path / "shared"
    real.mkdir()
    (real / "env").write_text("A=1\n")
    link = tmp_path / ".env"
    link.symlink_to(real / "env")

    changed(link, lambda text: text + "B=2\n")

    assert link.is_symlink()
    assert (real / "env").read_text() == "A=1\nB=2\n"


def test_changes_at_the_same_time_are_all_made(tmp_path: Path):
    """One waits for the other, and begins with what that has written."""
    path = tmp_path / ".env"
    threads = [
        threading.Thread(target=changed, args=(path, lambda text, one=one: text + f"{one}\n"))
        for one in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(path.read_text().split(), key=int) == [str(one) for one in range(20)]


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "this user may not write"),
        (errno.EROFS, "is mounted read-only"),
        (errno.EBUSY, "is mounted by itself"),
        (errno.ENOSPC, "no space left"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
@pytest.mark.parametrize("step", ["replace", "fsync"])
def test_what_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str, step: str
):
    """At whatever step; and nothing lies about beside it."""
    path = tmp_path / ".env"
    path.write_text("A=1\n")

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path if step == "replace" else os, step, fail)

    with pytest.raises(NotWritten, match=reason):
        changed(path, lambda text: text + "B=2\n")

    assert path.read_text() == "A=1\n"
    assert os.listdir(tmp_path) == [".env"]


def test_a_file_that_is_read_only_is_meant_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Though the folder would let it be replaced."""
    path = tmp_path / ".env"
    path.write_text("A=1\n")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anything

    with pytest.raises(NotWritten, match="may not write"):
        changed(path, lambda text: text + "B=2\n")

    assert path.read_text() == "A=1\n"
