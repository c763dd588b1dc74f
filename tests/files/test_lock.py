"""The one lock: who waits, who is refused, what is left of it."""

import errno
import fcntl
import multiprocessing
import os
import threading

import pytest

from thawmap.files.lock import hold


def test_a_second_one_is_refused_or_waits(tmp_path, caplog):
    path, entered = tmp_path / "x.lock", threading.Event()

    def wait():
        with hold(path) as is_held:
            assert is_held
            entered.set()

    with hold(path):
        with pytest.raises(BlockingIOError), hold(path, wait=False):
            pass
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(0.2)
    waiting.join(60)
    assert entered.is_set()
    assert caplog.messages == [f"another process holds {path}; waiting for it to end"]
    assert list(tmp_path.iterdir()) == []


def test_what_the_file_holds_stays_as_long_as_it_is_to_stay(tmp_path):
    path = tmp_path / "unfinished.txt"
    path.write_text("so far")
    with hold(path, wait=False, remove=False):
        assert path.read_text() == "so far"
    assert path.read_text() == "so far"
    with hold(path, wait=False):
        pass
    assert not path.exists()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_disk_without_locks_is_used_without(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with hold(tmp_path / "x.lock") as is_held, hold(tmp_path / "x.lock", wait=False):
        assert not is_held
    assert list(tmp_path.iterdir()) == []


def _hold_until_killed(path, entered):
    with hold(path):
        entered.set()
        threading.Event().wait()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_killed_process_frees_its_lock(tmp_path, method):
    context = multiprocessing.get_context(method)
    path, entered = tmp_path / "x.lock", context.Event()
    process = context.Process(target=_hold_until_killed, args=(path, entered))
    process.start()
    assert entered.wait(60)
    with pytest.raises(BlockingIOError), hold(path, wait=False):
        pass
    process.kill()
    process.join(60)
    assert path.exists()
    with hold(path, wait=False) as is_held:
        assert is_held
    assert not path.exists()


def test_a_lock_whose_file_was_removed_is_taken_on_a_new_file(tmp_path, monkeypatch):
    """Between opening and locking, who held the file has removed it, and another has made a new one."""
    path, real = tmp_path / "x.lock", fcntl.flock
    removed = []

    def flock(descriptor, how):
        if not removed:
            path.unlink()
            removed.append(descriptor)
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with hold(path, wait=False):
        assert path.exists()
        monkeypatch.undo()
        with pytest.raises(BlockingIOError), hold(path, wait=False):
            pass
    assert not path.exists()
