"""Downloads that are cut, changed, killed, lied to or led elsewhere, from a real server on loopback."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from file_server import file_server
from full_disk import room_for
from hypothesis import given
from hypothesis import strategies as st
from killed_downloads import killed_rounds

from thawmap.acquire import pacing
from thawmap.acquire.download import Wanted, download
from thawmap.acquire.http import Http, PatienceEnded, Refused
from thawmap.acquire.ledger import Ledger
from thawmap.acquire.names import check_paths, inside
from thawmap.acquire.progress import Progress
from thawmap.errors import DataError, ServiceError

CONTENT = random.Random(13).randbytes(300_000)


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with file_server(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_S", 0.01)
    running.clear()
    running.put("a", CONTENT)
    return running


@pytest.fixture
def http(server):
    with Http(rates={server.host: 1e6}, timeout_s=20) as http:
        yield http


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.fixture
def fetch(http, root):
    """Download files; what became of each, by path."""

    def fetch(*wanted, **words):
        ledger = Ledger.open(root / "ledger.jsonl")
        return {landed.wanted.path: landed for landed in download(http, wanted, ledger=ledger, root=root, **words)}

    return fetch


@pytest.fixture
def one(server, root, fetch):
    """Download one file; its path, if it landed."""

    def one(**words):
        wanted = Wanted(**{"url": f"{server.address}/a", "path": root / "a", **words})
        landed = fetch(wanted)[wanted.path]
        if landed.error:
            raise landed.error
        assert (landed.size, landed.sha256) == (wanted.path.stat().st_size, sha256(wanted.path.read_bytes()))
        return wanted.path

    return one


def ranges(server, name="a"):
    return [entry["headers"].get("range") for entry in server.log(name)]


def left(root):
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def test_files_land_whole_with_their_hashes_in_the_ledger(server, root, fetch):
    contents = {f"scenes/s{index}/{index}.tif": CONTENT[:index] for index in (0, 1, 1000, 300_000)}
    wanted = [Wanted(url=server.put(name, text), path=root / name) for name, text in contents.items()]
    landed = fetch(*wanted)
    for name, text in contents.items():
        assert (root / name).read_bytes() == text
        assert (landed[root / name].size, landed[root / name].sha256) == (len(text), sha256(text))
    assert left(root) == sorted([*contents, "ledger.jsonl"])
    entries = {entry["path"]: (entry["size"], entry["sha256"]) for entry in Ledger.open(root / "ledger.jsonl").events}
    assert entries == {name: (len(text), sha256(text)) for name, text in contents.items()}


def test_a_rerun_asks_for_nothing_and_works_offline(server, root, fetch):
    urls = [f"{server.address}/a", lambda: pytest.fail("a fresh address was asked for")]
    fetch(Wanted(url=urls[0], path=root / "a"))
    asked = len(server.log())
    again = fetch(Wanted(url=urls[1], path=root / "a", sha256=sha256(CONTENT)))[root / "a"]
    assert (again.is_new, again.sha256, again.error) == (False, sha256(CONTENT), None)
    assert len(server.log()) == asked


@pytest.mark.parametrize("etags", [True, False], ids=["by its ETag", "by its checksum"])
def test_a_cut_body_goes_on_where_it_ended(server, one, etags):
    server.control(etags=etags)
    server.fail("a", {"cut": 100_000}, {"cut": 1}, {"cut": 50_000})
    path = one(sha256=sha256(CONTENT))
    assert path.read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", "bytes=100001-", "bytes=150001-"]
    conditions = {entry["headers"].get("if-range") for entry in server.log("a")[1:]}
    assert (conditions == {None}) is not etags
    assert sum(entry["sent"] for entry in server.log("a")) == len(CONTENT)


@pytest.mark.parametrize("etags", [False, "weak"])
def test_without_a_way_to_know_that_it_is_the_same_file_a_cut_one_begins_anew_in_the_next_run(server, root, one, etags):
    server.control(etags=etags)
    part = root / "a.part"
    root.mkdir()
    part.write_bytes(b"other bytes")
    (root / "a.part.json").write_text(json.dumps({"total": len(CONTENT), "size": None, "sha256": None, "md5": None}))
    assert one().read_bytes() == CONTENT
    assert ranges(server) == [None]


@pytest.mark.parametrize("record", ["", "{", "[]", '{"total": "x"}', '{"total": 1, "etag": "x"}', '{"etag": 1}'])
def test_a_part_with_a_senseless_record_begins_anew(server, root, one, record):
    root.mkdir()
    (root / "a.part").write_bytes(CONTENT[:1000])
    (root / "a.part.json").write_text(record)
    assert one(sha256=sha256(CONTENT)).read_bytes() == CONTENT
    assert ranges(server) == [None]


def test_a_server_without_range_begins_anew(server, one):
    server.control(ranges=False)
    server.fail("a", {"cut": 100_000})
    assert one(sha256=sha256(CONTENT)).read_bytes() == CONTENT
    assert [entry["status"] for entry in server.log("a")] == [200, 200]


def test_a_file_that_changed_between_two_tries_begins_anew(server, one):
    server.fail("a", {"cut": 100_000})
    other = CONTENT[::-1]
    server.fail("a", {"content": "x" * 200_000, "cut": 50_000}, {"content": "y" * 200_000})
    assert one().read_bytes() == b"y" * 200_000
    assert other != CONTENT
    assert [entry["status"] for entry in server.log("a")] == [200, 200, 200]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": "bytes 0-299999/300000"},
        {"Content-Range": "bytes 100000-299999/400000"},
        {"Content-Range": "nonsense"},
        {"Content-Range": "bytes 100000-299999/300000", "ETag": '"another"'},
    ],
)
def test_a_server_that_goes_on_wrongly_is_begun_anew(server, one, headers):
    server.fail("a", {"cut": 100_000}, {"status": 206, "headers": headers, "body": "x" * 200_000})
    assert one().read_bytes() == CONTENT
    assert ranges(server) == [None, "bytes=100000-", None]


def test_a_file_that_changes_all_the_time_is_said(server, one):
    faults = [{"cut": 100_000, "headers": {"ETag": f'"{index}"'}} for index in range(30)]
    wrong = {"status": 206, "headers": {"Content-Range": "bytes 0-1/2"}, "body": "xx"}
    server.fail("a", *[fault for pair in zip(faults, [wrong] * 30, strict=True) for fault in pair])
    with pytest.raises(ServiceError, match="has changed on the service, 6 times"):
        one()


def test_a_range_beyond_the_end_begins_anew(server, one):
    server.fail("a", {"cut": 100_000}, {"status": 416})
    assert one().read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "known", "says"),
    [
        ({"over": 10}, {"size": len(CONTENT)}, "has 300010 bytes on the service where 300000 are expected"),
        ({"over": 10, "chunked": True}, {"size": len(CONTENT)}, "goes on beyond its 300000 bytes"),
        ({"over": 10, "endless": True}, {"size": len(CONTENT)}, "goes on beyond its 300000 bytes"),
        ({"over": 10}, {"sha256": sha256(CONTENT)}, "came with sha256 .* is expected"),
        ({"content": "changed"}, {"sha256": sha256(CONTENT)}, "came with sha256"),
        ({"content": "changed"}, {"md5": hashlib.md5(CONTENT).hexdigest()}, "came with md5"),
        ({"content": "changed"}, {"size": len(CONTENT)}, "has 7 bytes on the service where 300000"),
        ({"content": "changed", "chunked": True}, {"sha256": sha256(CONTENT)}, "came with sha256"),
        ({"endless": True}, {}, "without its length"),
        ({"headers": {"Content-Encoding": "gzip"}}, {}, "sent as gzip, which was not asked for"),
        (
            {"content": "<html>", "headers": {"Content-Type": "text/html; x=y"}},
            {},
            "answered with a web page",
        ),
    ],
)
def test_a_wrong_body_is_tried_twice_and_never_gets_the_name(server, root, one, fault, known, says):
    server.fail("a", fault, fault)
    with pytest.raises(ServiceError, match=f"{says}.*2 times in a row; it is left out"):
        one(**known)
    assert left(root) in ([], ["ledger.jsonl"])
    assert one(**known).read_bytes() == CONTENT
    assert left(root) == ["a", "ledger.jsonl"]


@pytest.mark.parametrize("known", [{"sha256": sha256(CONTENT).upper()}, {"md5": hashlib.md5(CONTENT).hexdigest()}])
@pytest.mark.parametrize("fault", [{"chunked": True}, {"endless": True}, {"chunked": True, "cut": 70_000}, {"over": 1}])
def test_a_body_that_is_right_in_the_end_lands(server, one, known, fault):
    server.fail("a", fault)
    assert one(**known).read_bytes() == CONTENT


def test_a_body_longer_than_it_says_spoils_no_later_answer(server, fetch, root):
    """The bytes too many lie in the connection, where the next answer is expected."""
    for name in "abc":
        server.put(name, CONTENT)
        server.fail(name, {"over": 50, "length": len(CONTENT)})
    wanted = [Wanted(url=f"{server.address}/{name}", path=root / name) for name in "abc"]
    assert all(landed.error is None for landed in fetch(*wanted, connections=1).values())
    assert {(root / name).read_bytes() for name in "abc"} == {CONTENT}


def test_a_body_that_breaks_off_again_and_again_is_left_for_a_rerun(server, root, one):
    server.fail("a", {"cut": 1000}, *[{"cut": 0}] * 7)
    with pytest.raises(ServiceError, match=r"breaks off again and again .* a rerun goes on"):
        one()
    assert (root / "a.part").stat().st_size == 1000
    assert one().read_bytes() == CONTENT
    assert ranges(server)[-1] == "bytes=1000-"


def test_a_silent_body_is_asked_for_again(server, root):
    server.fail("a", {"stall": 65536})
    with Http(rates={server.host: 1e6}, timeout_s=0.5) as http:
        wanted = [Wanted(url=f"{server.address}/a", path=root / "a")]
        (landed,) = download(http, wanted, ledger=Ledger.open(root / "l"), root=root)
    assert landed.error is None
    assert ranges(server) == [None, "bytes=65536-"]


@pytest.mark.parametrize("status", [401, 403, 410])
def test_an_expired_link_costs_one_fresh_address(server, one, status):
    """Whatever our clock and the service's say: only its refusal counts."""
    server.control(tokens=["new"], date="Fri, 01 Jan 2038 10:00:00 GMT")
    addresses = [f"{server.address}/signed/a?token={token}" for token in ("old", "new", "unused")]
    if status != 403:
        server.fail("signed/a", {"status": status, "body": "<html>gone</html>"})
    path = one(url=lambda: addresses.pop(0))
    assert path.read_bytes() == CONTENT
    assert len(addresses) == 1


def test_a_link_that_expires_in_the_middle_goes_on_with_a_fresh_one(server, one):
    server.control(tokens=["1", "2", "3", "4"])
    server.fail("signed/a", {"cut": 1000}, {"status": 403}, {"cut": 1000}, {"status": 403}, {"cut": 1000})
    addresses = [f"{server.address}/signed/a?token={token}" for token in "1234"]
    assert one(url=lambda: addresses.pop(0)).read_bytes() == CONTENT
    assert len(addresses) == 1
    assert [asked for asked in ranges(server, "signed/a") if asked] == [
        "bytes=1000-",
        "bytes=1000-",
        "bytes=2000-",
        "bytes=2000-",
        "bytes=3000-",
    ]


def test_a_web_page_of_a_login_is_an_expired_link(server, one):
    page = {"content": "<html>log in</html>", "headers": {"Content-Type": "text/html"}}
    server.fail("a", page)
    addresses = [f"{server.address}/a?{index}" for index in range(2)]
    assert one(url=lambda: addresses.pop(0)).read_bytes() == CONTENT
    assert not addresses


def test_a_link_that_stays_refused_is_one_fault(server, root, fetch):
    asked = []
    refused = Wanted(url=lambda: asked.append(1) or f"{server.address}/signed/a?token=SECRET", path=root / "x")
    fixed = Wanted(url=f"{server.address}/signed/a?token=SECRET", path=root / "y")
    good = Wanted(url=f"{server.address}/a", path=root / "z")
    landed = fetch(refused, fixed, good)
    assert len(asked) == 2
    assert isinstance(landed[refused.path].error, Refused)
    assert isinstance(landed[fixed.path].error, Refused)
    assert "SECRET" not in str(landed[refused.path].error)
    assert landed[good.path].error is None
    assert left(root) == ["ledger.jsonl", "z"]


def test_an_address_that_cannot_be_had_is_one_fault(server, root, fetch):
    def none():
        msg = "order 7 is gone"
        raise ServiceError(msg)

    landed = fetch(Wanted(url=none, path=root / "x"), Wanted(url=f"{server.address}/a", path=root / "a"))
    assert str(landed[root / "x"].error) == "order 7 is gone"
    assert landed[root / "a"].error is None


def test_a_busy_server_is_left_after_the_patience_with_all_that_is_done(server, root):
    names = [f"f{index}" for index in range(20)]
    for name in names:
        server.put(name, CONTENT)
    server.fail("*", *[None] * 5, *[{"status": 429, "headers": {"Retry-After": "3600"}}] * 20)
    with Http(rates={server.host: 1e6}, patience_s=5) as http:
        wanted = [Wanted(url=f"{server.address}/{name}", path=root / name) for name in names]
        landed = list(download(http, wanted, ledger=Ledger.open(root / "ledger.jsonl"), root=root, connections=2))
    assert sum(file.error is None for file in landed) == 5
    assert sum(isinstance(file.error, PatienceEnded) for file in landed) == 15
    assert len(server.log()) <= 7


HOSTILE = ["../x", "a/../../x", "/etc/x", "..", "", ".", "a/..", "x\0y", "a\\..\\x", "n" * 250, "a/b/../c", "x/"]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_refused(tmp_path, name):
    with pytest.raises(ServiceError, match=r"names a file .*nothing"):
        inside(tmp_path, name)


@given(st.lists(st.sampled_from(["..", ".", "a", "B", "", "ä", "x.tif"]), max_size=5), st.booleans())
def test_what_is_not_refused_lies_inside(parts, is_absolute):
    root = Path("/srv/data")
    name = "/" * is_absolute + "/".join(parts)
    try:
        path = inside(root, name)
    except ServiceError:
        return
    assert Path(os.path.normpath(path)).is_relative_to(root)
    assert os.path.normpath(path) != str(root)
    check_paths([path], root)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["ok", "../x"], "does not lie in|leads out"),
        (["ok", "/etc/x"], "does not lie in"),
        (["a/../../x"], "leads out"),
        (["x", "x"], "x twice would be one file"),
        (["s/Scene.tif", "s/scene.TIF"], "Scene.tif and .*scene.TIF would be one file"),
        (["s/\u00e4", "s/a\u0308"], "would be one file"),
        (["S/1", "s/1"], "would be one file"),
        (["a", "a/b"], "in the way"),
        (["a", "a.part"], "in the way"),
        (["a", "A.part.json"], "in the way"),
        (["n" * 250], "longer than a disk allows"),
        (["."], "does not lie in"),
    ],
)
def test_of_hostile_or_double_names_nothing_is_fetched(server, root, fetch, names, says):
    with pytest.raises(ServiceError, match=says):
        fetch(*(Wanted(url=f"{server.address}/a", path=root / name) for name in names))
    assert server.log() == []
    assert not root.exists()


def test_a_full_disk_is_said_before_the_download(server, root, fetch):
    wanted = [Wanted(url=f"{server.address}/a", path=root / "deep" / str(index), size=10**17) for index in range(2)]
    with pytest.raises(DataError, match=r"200000\.0 TB are to be fetched into .* room for .*; free some room"):
        fetch(*wanted)
    assert server.log() == []


def test_a_file_too_large_for_the_disk_is_said_before_its_body(server, root, fetch):
    server.fail("a", {"length": 10**17})
    with pytest.raises(DataError, match=r"a cannot be written .No space left on device"):
        fetch(Wanted(url=f"{server.address}/a", path=root / "a"))


def test_a_disk_that_fills_up_meanwhile_ends_all_and_a_rerun_goes_on(server, root, fetch):
    """No file may grow beyond some bytes, which is how a disk is full without being one's own."""
    wanted = Wanted(url=f"{server.address}/a", path=root / "a", sha256=sha256(CONTENT))
    with room_for(100_000), pytest.raises(DataError, match="a cannot be written"):
        fetch(wanted)
    there = (root / "a.part").stat().st_size
    assert 0 < there <= 100_000
    assert fetch(wanted)[root / "a"].error is None
    assert ranges(server) == [None, f"bytes={there}-"]


def test_what_is_there_and_right_is_taken_over_without_a_request(server, root, fetch):
    root.mkdir()
    (root / "a").write_bytes(CONTENT)
    landed = fetch(Wanted(url=f"{server.address}/a", path=root / "a", sha256=sha256(CONTENT)))[root / "a"]
    assert (landed.error, landed.is_new, landed.size) == (None, False, len(CONTENT))
    assert server.log() == []
    assert len(Ledger.open(root / "ledger.jsonl").of("file", path="a")) == 1


@pytest.mark.parametrize("known", [{"sha256": sha256(CONTENT)}, {"size": len(CONTENT)}, {}])
def test_somebodys_file_under_the_name_stays(server, root, fetch, known):
    root.mkdir()
    (root / "a").write_bytes(b"my own work")
    landed = fetch(Wanted(url=f"{server.address}/a", path=root / "a", **known))[root / "a"]
    assert isinstance(landed.error, DataError)
    assert "is there, and is not what is to be fetched; move it away" in str(landed.error)
    assert (root / "a").read_bytes() == b"my own work"
    assert server.log() == []


def test_our_own_file_that_was_cut_later_is_fetched_again(server, root, one):
    os.truncate(one(), 1000)
    assert one().read_bytes() == CONTENT
    assert len(server.log("a")) == 2


def test_a_part_that_is_whole_needs_no_request(server, root, one):
    """As after a kill between the ledger and the name."""
    path = one(sha256=sha256(CONTENT))
    record = {"total": len(CONTENT), "size": None, "sha256": sha256(CONTENT), "md5": None}
    path.rename(root / "a.part")
    (root / "a.part.json").write_text(json.dumps(record))
    asked = len(server.log())
    assert one(sha256=sha256(CONTENT)).read_bytes() == CONTENT
    assert len(server.log()) == asked
    assert left(root) == ["a", "ledger.jsonl"]


def test_what_a_kill_after_the_name_left_of_a_part_goes(server, root, one):
    one()
    (root / "a.part.json").write_text("{}")
    asked = len(server.log())
    one()
    assert left(root) == ["a", "ledger.jsonl"]
    assert len(server.log()) == asked


def test_signed_addresses_stand_in_no_file(server, root, fetch):
    server.control(tokens=["PLANTED"])
    server.fail("signed/a", {"cut": 1000}, *[{"cut": 0}] * 10)
    fetch(Wanted(url=f"{server.address}/signed/a?token=PLANTED", path=root / "a"))
    assert "a.part.json" in left(root)
    assert not any(b"PLANTED" in path.read_bytes() for path in root.rglob("*") if path.is_file())


def test_progress_counts_bytes_of_all_files_in_the_thread_that_iterates(server, root, fetch):
    reports, threads = [], set()

    def progress(done, total):
        reports.append((done, total))
        threads.add(threading.get_ident())

    server.fail("a", {"cut": 100_000}, {"status": 416})
    wanted = [
        Wanted(url=f"{server.address}/a", path=root / "a"),
        Wanted(url=server.put("b", CONTENT[:1000]), path=root / "b", size=1000),
    ]
    fetch(*wanted, progress=progress)
    assert reports[-1] == (301_000, 301_000)
    assert threads == {threading.get_ident()}
    assert all(0 <= done <= total for done, total in reports)


def test_progress_in_words_has_bytes_rate_and_time_left():
    now = 0.0
    progress = Progress(clock=lambda: now)
    assert progress.line(500_000_000, 4_000_000_000) == "500.0 MB of 4.0 GB"
    now = 10.0
    assert progress.line(600_000_000, 4_000_000_000) == "600.0 MB of 4.0 GB, 10.0 MB/s, 5 min 40 s left"
    now = 100.0
    assert progress.line(600_000_000, 4_000_000_000) == "600.0 MB of 4.0 GB"
    assert progress.line(4_000_000_000, 4_000_000_000).startswith("4.0 GB of 4.0 GB")


def test_a_consumer_that_leaves_stops_the_transfer(server, http, root):
    names = [f"f{index}" for index in range(6)]
    for name in names:
        server.put(name, CONTENT)
        server.fail(name, {"pace": 0.5}) if name != "f0" else None
    wanted = [Wanted(url=f"{server.address}/{name}", path=root / name) for name in names]
    transfer = download(http, wanted, ledger=Ledger.open(root / "ledger.jsonl"), root=root, connections=2)
    next(transfer)
    while not any(path.stat().st_size for path in root.glob("f?.part")):
        time.sleep(0.01)
    transfer.close()
    sizes = {path: path.stat().st_size for path in root.rglob("*.part")}
    time.sleep(0.6)
    assert sizes
    assert {path: path.stat().st_size for path in root.rglob("*.part")} == sizes
    assert (root / "f0").exists()
    assert len(server.log()) < len(names)


@pytest.mark.slow
@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_download_killed_at_random_moments_fetches_each_byte_once(server, tmp_path, by):
    assert killed_rounds(server, tmp_path, 4, seed=int(by), by=by) > 0


@pytest.mark.slow
def test_two_runs_at_once_are_one(server, tmp_path):
    """The second is refused by the lock, with the first one's process; what the first fetches is fetched once."""
    server.put("big", CONTENT)
    server.fail("big", {"pace": 0.3})
    script = Path(__file__).parents[1] / "support" / "killed_downloads.py"
    command = [sys.executable, str(script), server.address, str(tmp_path), json.dumps({"big": sha256(CONTENT)})]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not server.log("big"):
        time.sleep(0.05)
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert f"process {first.pid} on " in second.stderr
    assert first.wait(30) == 0
    assert len(server.log("big")) == 1
