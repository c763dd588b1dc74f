"""The ledger whose lines are cut, damaged or written at once, and the lock of its folder."""

import json
import os
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from full_disk import room_for
from hypothesis import given, settings
from hypothesis import strategies as st

from thawmap.acquire import ledger as ledgers
from thawmap.acquire.ledger import LOCK, Ledger, alone
from thawmap.errors import DataError, ThawmapError

TEXTS = st.text(st.characters(codec="utf-8"), max_size=20).filter(lambda text: not text.lower().startswith("http"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "ledger.jsonl"


def numbers(ledger):
    return [entry["number"] for entry in ledger.of("x")]


@settings(max_examples=30)
@given(st.lists(VALUES, max_size=4))
def test_what_is_appended_is_read_back(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("ledger") / "ledger.jsonl"
    ledger = Ledger.open(path)
    for value in values:
        ledger.append("placed", value=value)
    assert Ledger.open(path).events == ledger.events
    assert [entry["value"] for entry in ledger.events] == values
    assert path.exists() is bool(values)  # opening writes nothing


def test_events_are_found_by_kind_and_values(path):
    ledger = Ledger.open(path)
    for number in range(4):
        ledger.append("asked", name=f"n{number % 2}", number=number)
    ledger.append("placed", name="n0")
    assert [entry["number"] for entry in ledger.of("asked", name="n1")] == [1, 3]
    assert len(ledger.of("asked")) == 4
    assert ledger.of("placed", id=None) == []
    assert all(entry["time"].endswith("+00:00") for entry in ledger.events)


def test_time_is_utc_wherever_one_is(path, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Kamchatka")
    time.tzset()
    try:
        entry = Ledger.open(path).append("x")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert abs(time.time() - ledgers.datetime.fromisoformat(entry["time"]).timestamp()) < 60


def test_cut_anywhere_only_the_last_event_is_lost_and_the_next_one_stands(path):
    """At every byte of the file, as after kill -9 or a power cut; whole lines stay."""
    ledger = Ledger.open(path)
    for number in range(3):
        ledger.append("x", number=number, text="ä\n")
    content = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(content) if byte == ord("\n")]
    for cut in range(len(content)):
        path.write_bytes(content[:cut])
        whole = [number for number, end in enumerate(ends) if cut >= end - 1]  # without its line break it is whole
        opened = Ledger.open(path)
        assert numbers(opened) == whole
        opened.append("x", number=9)
        opened.close()
        assert numbers(Ledger.open(path)) == [*whole, 9]
        assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("tail", [b"\0" * 200, b'{"event": "x"', b'"x"\n', b'{"no": "event"}\n', b"\xff\n"])
def test_a_last_line_that_is_none_is_dropped(path, tail):
    Ledger.open(path).append("x", number=1)
    with path.open("ab") as file:
        file.write(tail)
    ledger = Ledger.open(path)
    ledger.append("x", number=2)
    assert numbers(Ledger.open(path)) == [1, 2]


@pytest.mark.parametrize("damage", [b"\0" * 40, b'{"event": "x", ', b"<<<<<<< HEAD", b"[]", b"7", b'{"event": 7}'])
def test_a_damaged_line_in_the_middle_is_named(path, damage):
    """To go on without it could pay an order twice."""
    ledger = Ledger.open(path)
    for number in range(3):
        ledger.append("x", number=number)
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    with pytest.raises(DataError, match=r"ledger.jsonl is damaged in line 2, so that .*put back a copy"):
        Ledger.open(path)


def test_empty_lines_are_no_damage(path):
    Ledger.open(path).append("x", number=1)
    path.write_bytes(b"\n" + path.read_bytes() + b"\n  \n")
    ledger = Ledger.open(path)
    ledger.append("x", number=2)
    assert numbers(Ledger.open(path)) == [1, 2]


def test_addresses_lose_their_query_at_any_depth(path):
    secret = "https://me:SECRET@a.org/b.tif?token=SECRET#SECRET"
    ledger = Ledger.open(path)
    ledger.append("placed", url=secret, results=[{"location": secret, "urls": (secret.upper(),)}])
    assert "SECRET" not in path.read_text()
    assert ledger.events[0]["results"][0]["location"] == "https://a.org/b.tif"


def test_many_threads_append_whole_lines(path):
    ledger = Ledger.open(path)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: ledger.append("x", number=number), range(64)))
    assert sorted(numbers(Ledger.open(path))) == list(range(64))
    assert numbers(Ledger.open(path)) == numbers(ledger)


def test_a_full_disk_leaves_the_lines_before(path):
    """No file may grow beyond some bytes, which is how a disk is full without being one's own."""
    ledger = Ledger.open(path)
    ledger.append("x", number=1)
    whole = path.read_bytes()
    with room_for(len(whole) + 20):
        with pytest.raises(DataError, match=r"ledger.jsonl cannot be written"):
            ledger.append("x", number=2, text="long" * 20)
        assert path.read_bytes() == whole
    ledger.append("x", number=3)
    assert numbers(Ledger.open(path)) == numbers(ledger) == [1, 3]


@pytest.mark.parametrize("make", ["folder", "below a file"])
def test_a_place_for_no_ledger_is_a_sentence(tmp_path, make):
    (tmp_path / "file").write_text("")
    path = tmp_path if make == "folder" else tmp_path / "file" / "ledger.jsonl"
    with pytest.raises(ThawmapError, match="cannot be"):
        Ledger.open(path).append("x")


def run(code, *arguments):
    """A process that runs code after the imports, its output as text."""
    head = (
        "import os, signal, sys, time\nfrom pathlib import Path\n"
        "from thawmap.acquire.ledger import Ledger, alone\nfrom thawmap.errors import DataError\n"
    )
    words = [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_an_event_that_was_appended_outlives_kill_9(path):
    code = """
        ledger = Ledger.open(Path(sys.argv[1]))
        while True:
            number = len(ledger.events)
            ledger.append("x", number=number, text="x" * 500)
            os.write(1, b"%d\\n" % number)
    """
    before = 0
    for wanted in (1, 20, 7):
        process = run(code, path)
        for _ in range(wanted):
            last = int(process.stdout.readline())
        process.kill()
        last = int((process.stdout.read().splitlines() or [last])[-1])
        process.wait()
        process.stdout.close()
        events = numbers(Ledger.open(path))
        assert events == list(range(len(events)))
        assert len(events) > last >= before
        before = last


HOLD = """
    with alone(Path(sys.argv[1])):
        os.write(1, b"held\\n")
        time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_process_is_refused_by_name_and_a_killed_one_is_named(tmp_path):
    process = run(HOLD, tmp_path)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(DataError, match=rf"process {process.pid} on .* acquires into .*; wait for it to end"):
        _hold(tmp_path)
    process.kill()
    process.wait()
    process.stdout.close()
    assert (tmp_path / LOCK).exists()
    notes = []
    with alone(tmp_path, note=notes.append):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert len(notes) == 1
    assert notes[0].startswith(f"process {process.pid} on ")
    assert "ended before its work did" in notes[0]
    assert not (tmp_path / LOCK).exists()


def test_a_lock_of_another_machine_is_named_and_stays(tmp_path):
    (tmp_path / LOCK).write_text('{"pid": 7, "host": "node\\u001b12", "since": "2026-12-01T00:00:00+00:00"}')
    for _ in range(2):
        with pytest.raises(DataError, match=r"process 7 on node\\x1b12 .* may still acquire .* remove .*acquire.lock"):
            _hold(tmp_path)
    (tmp_path / LOCK).unlink()
    with alone(tmp_path):
        pass


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_lock_that_says_nothing_is_in_nobodys_way(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with alone(tmp_path, note=pytest.fail):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


def test_on_a_disk_without_locks_a_living_process_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr("thawmap.files.lock._lock", _no_locks)
    holder = {"host": ledgers.socket.gethostname(), "since": "now"}
    (tmp_path / LOCK).write_text(json.dumps({"pid": os.getppid(), **holder}))
    with pytest.raises(DataError, match=f"process {os.getppid()} on .* acquires"), alone(tmp_path):
        pytest.fail("two at once")
    (tmp_path / LOCK).write_text(json.dumps({"pid": 2**30, **holder}))
    notes = []
    with alone(tmp_path, note=notes.append):
        assert len(notes) == 1


def _hold(folder):
    with alone(folder):
        pytest.fail("two at once")


def _no_locks(*_, **__):
    raise OSError(ledgers.errno.ENOLCK, "no locks")


def test_errors_inside_keep_their_kind_and_the_lock_goes(tmp_path):
    for error in (BlockingIOError(11, "x"), OSError(5, "x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, alone(tmp_path / "new"):
            raise error
        assert raised.value is error
        assert not (tmp_path / "new" / LOCK).exists()
