"""The folder of a group: private, named by its owner's life, swept when the owner is gone."""

import multiprocessing
import os
import subprocess
import sys

import pytest

from isp_perf.metrics import _group
from isp_perf.metrics._group import group_folder, has_siblings, owner, start_time, sweep


def test_the_owner_is_this_process_without_a_server():
    """A plain program is its own owner; under gunicorn it is the master."""
    if multiprocessing.parent_process() is None:
        assert owner({}) == os.getpid()
        assert not has_siblings({})
        assert owner({"SERVER_SOFTWARE": "gunicorn/23.0"}) == os.getppid()


def test_children_of_multiprocessing_share_their_parent():
    """Two children started by multiprocessing name the same owner: the process that started them."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        owners = set(pool.map(owner, [{}, {}]))
    assert owners == {os.getpid()}


def test_start_times_tell_lives_apart():
    """A living process has a start time that stays the same, a dead one has none."""
    assert start_time(os.getpid()) == start_time(os.getpid()) != ""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert start_time(process.pid) == ""


def test_the_variable_names_the_folder(tmp_path):
    """ISP_PERF_DIR is taken as it is, and made private if it has to be made."""
    folder = group_folder({"ISP_PERF_DIR": str(tmp_path / "a" / "b")})
    assert folder == tmp_path / "a" / "b"
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_folder_is_private_and_named_by_the_owner(tmp_path, monkeypatch):
    """Base and group folder are closed to others, and the name holds the owner's id and start."""
    monkeypatch.setattr(_group, "_SHARED_MEMORY", tmp_path)
    folder = group_folder({})
    assert folder.name == f"{owner({})}-{start_time(owner({}))}"
    assert {path.stat().st_mode & 0o777 for path in (folder, folder.parent)} == {0o700}


@pytest.mark.parametrize("trap", ["open", "link", "file"])
def test_a_folder_that_others_may_enter_is_not_used(tmp_path, monkeypatch, trap):
    """A base folder that is open to others, a link or a file is refused for the next place."""
    shared, temporary = tmp_path / "shm", tmp_path / "tmp"
    shared.mkdir()
    temporary.mkdir()
    base = shared / f"isp_perf-{os.getuid()}"
    if trap == "open":
        base.mkdir()
        base.chmod(0o777)
    elif trap == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        base.symlink_to(tmp_path / "elsewhere")
    else:
        base.write_text("")
    monkeypatch.setattr(_group, "_SHARED_MEMORY", shared)
    monkeypatch.setattr(_group.tempfile, "gettempdir", lambda: str(temporary))
    assert group_folder({}).parent.parent == temporary


def test_without_any_place_it_is_an_error(tmp_path, monkeypatch):
    """No writable place at all is an OSError, which the registry answers with figures of this process."""
    monkeypatch.setattr(_group, "_SHARED_MEMORY", tmp_path / "missing")
    monkeypatch.setattr(_group.tempfile, "gettempdir", lambda: str(tmp_path / "missing too"))
    with pytest.raises(OSError, match="No such file"):
        group_folder({})


def test_folders_of_dead_owners_are_swept(tmp_path, monkeypatch):
    """A dead owner's folder goes, a living owner's stays, and so does our own and whatever else lies there."""
    monkeypatch.setattr(_group, "_SHARED_MEMORY", tmp_path)
    mine = group_folder({})
    dead = mine.parent / "999999999-1"
    reused = mine.parent / f"{os.getpid()}-1"
    living = mine.parent / f"{os.getppid()}-{start_time(os.getppid())}"
    for folder in (dead, reused, living):
        folder.mkdir(exist_ok=True)
        (folder / "1-ab.m").write_bytes(b"")
    sweep(mine)
    assert mine.exists()
    assert living.exists()
    assert not dead.exists()
    assert not reused.exists()
