"""One folder for each process, held by the kernel."""

import os
import signal
import subprocess
import sys
import threading

from gateway.spool.folders import leftovers, make

HOLD = """
import sys, time
from pathlib import Path
from gateway.spool.folders import make
print(make(Path(sys.argv[1])).path, flush=True)
time.sleep(60)
"""


def test_a_folder_in_use_is_no_leftover(tmp_path):
    """Not even for the process that holds it."""
    held = make(tmp_path / "spool")

    assert list(leftovers(tmp_path / "spool")) == []
    held.release()


def test_what_a_killed_process_held_can_be_adopted_once(tmp_path):
    """The lock goes with the process; whoever adopts holds it until it is done."""
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    path = child.stdout.readline().strip()
    while_it_lives = list(leftovers(tmp_path))
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()

    (adopted,) = leftovers(tmp_path)

    assert while_it_lives == []
    assert str(adopted.path) == path
    assert list(leftovers(tmp_path)) == []
    adopted.remove()
    assert list(tmp_path.iterdir()) == []


def test_removing_deletes_all_that_is_in_it(tmp_path):
    folder = make(tmp_path)
    (folder.path / "00000001.journal").write_bytes(b"x")
    (folder.path / "reserve").write_bytes(b"x")

    folder.remove()

    assert list(tmp_path.iterdir()) == []


def test_folders_are_private(tmp_path):
    """Audit rows are in them."""
    folder = make(tmp_path / "spool")

    assert [path.stat().st_mode & 0o777 for path in (tmp_path / "spool", folder.path)] == [0o700, 0o700]
    folder.release()


def test_what_is_no_folder_of_ours_is_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("hello")

    assert list(leftovers(tmp_path)) == []
    assert (tmp_path / "note.txt").read_text() == "hello"


def test_making_and_adopting_at_once_never_share_a_folder(tmp_path):
    """Many threads stand for many processes: the lock belongs to the open file."""
    paths: list[str] = []

    def make_many() -> None:
        for _ in range(40):
            folder = make(tmp_path)
            (folder.path / "mine").touch(exist_ok=False)
            assert os.listdir(folder.path).count("mine") == 1
            paths.append(folder.path.name)
            folder.release()

    def adopt_many() -> None:
        for _ in range(40):
            for folder in leftovers(tmp_path):
                folder.remove()

    threads = [threading.Thread(target=work) for work in (make_many, adopt_many, make_many, adopt_many)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(paths)) == 80
