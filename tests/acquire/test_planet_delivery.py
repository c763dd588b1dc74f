"""What orders bring: fetched once, checked, nothing outside of its folder, and nothing lost in silence."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import pytest
from planet_fake import AREA, FAST, KEY, fake_planet, ledger_in, silent, wishes

from thawmap.acquire.http import PatienceEnded
from thawmap.acquire.planet import history
from thawmap.acquire.planet.delivery import fetch
from thawmap.acquire.planet.orders import order


@pytest.fixture(scope="module")
def running():
    with fake_planet() as planet:
        yield planet


@pytest.fixture
def planet(running):
    running.reset()
    return running


def place(planet, folder, ids, **options):
    settings = planet.settings.model_copy(update=options)
    with planet.http() as http:
        return order(http, settings, {"Lena": wishes(ids)}, [AREA], ledger_in(folder), silent, manners=FAST)


def bring(planet, folder, *, note=silent, manners=FAST, settings=None, **options):
    with planet.http() as http:
        return fetch(
            http, settings or planet.settings, folder, ledger_in(folder), note, manners=manners, **options
        )  # fmt: skip


def files_below(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def downloads(planet):
    return [entry for entry in planet.log if entry["path"] == "/compute/ops/download/"]


def assert_is_as_the_manifest_says(folder):
    for manifest in folder.rglob("manifest.json"):
        for row in json.loads(manifest.read_text())["files"]:
            content = (manifest.parent / row["path"]).read_bytes()
            assert len(content) == row["size"]
            assert hashlib.sha256(content).hexdigest() == row["digests"]["sha256"]


def test_files_lie_as_delivered_and_a_rerun_asks_for_nothing(tmp_path, planet):
    ids = planet.add_many(3)
    (placed,) = place(planet, tmp_path, ids)
    seen = []
    received = bring(planet, tmp_path, progress=lambda done, total: seen.append((done, total)))
    below = f"scenes/Lena/{placed.id}"
    names = [f"{below}/PSScene/{id_}_{end}" for id_ in ids for end in (
        "3B_AnalyticMS_SR_clip.tif", "3B_AnalyticMS_metadata.xml", "3B_udm2_clip.tif", "metadata.json",
    )]  # fmt: skip
    assert files_below(tmp_path) == sorted([*names, f"{below}/manifest.json", "ledger.jsonl"])
    assert_is_as_the_manifest_says(tmp_path)
    assert (received.files, received.new) == (len(names), len(names) + 1)
    assert received.size == seen[-1][0] == seen[-1][1]
    offline = planet.settings.model_copy(update={"address": "http://127.0.0.1:1"})
    again = bring(planet, tmp_path, settings=offline)
    assert (again.files, again.faults, again.missing) == (len(names), [], [])
    assert history.status(ledger_in(tmp_path)) == [f"Lena: 3 scenes, 3.0 km2: on disk (order {placed.id})"]


def test_a_storm_of_429_delays_a_delivery_and_loses_nothing(tmp_path, planet):
    place(planet, tmp_path, planet.add_many(3))
    planet.control(busy="1110" * 5, retry_after=0.05)
    assert bring(planet, tmp_path).faults == []
    assert_is_as_the_manifest_says(tmp_path)
    assert sum(entry["status"] == 429 for entry in planet.log) == 15


def test_a_file_that_was_removed_is_fetched_again_without_an_order(tmp_path, planet):
    place(planet, tmp_path, planet.add_many(2))
    bring(planet, tmp_path)
    before = len(downloads(planet))
    next(tmp_path.rglob("*_udm2_clip.tif")).unlink()
    bring(planet, tmp_path)
    assert_is_as_the_manifest_says(tmp_path)
    assert len(downloads(planet)) - before == 1
    assert planet.posts() == 1


def test_polling_goes_on_until_the_state_is_final(tmp_path, planet):
    planet.control(states=["queued", "running", "running", "success"])
    place(planet, tmp_path, planet.add_many(1))
    notes = []
    bring(planet, tmp_path, note=notes.append)
    assert [event["state"] for event in ledger_in(tmp_path).of("state")] == ["queued", "running", "success"]
    assert_is_as_the_manifest_says(tmp_path)


def test_the_end_of_patience_says_what_is_not_ready_and_a_rerun_goes_on(tmp_path, planet):
    planet.control(states=["queued", "running"])
    (placed,) = place(planet, tmp_path, planet.add_many(1))
    with pytest.raises(PatienceEnded, match=placed.id):
        bring(planet, tmp_path, manners=replace(FAST, patience_s=0.1))
    assert "fetch' waits" in history.status(ledger_in(tmp_path))[0]


def test_a_run_that_is_killed_while_it_waits_is_explained_and_goes_on(tmp_path, planet):
    planet.control(states=["running"] * 40 + ["success"])
    place(planet, tmp_path, planet.add_many(1))
    script = textwrap.dedent(f"""
        from planet_fake import *
        from thawmap.acquire.planet.delivery import fetch
        planet, folder = FakePlanet({planet.address!r}), Path({str(tmp_path)!r})
        with planet.http() as http:
            fetch(http, planet.settings, folder, ledger_in(folder), silent, manners=FAST)
        """)
    path = os.pathsep.join(["tests/support", *sys.path])
    run = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path})
    deadline = time.monotonic() + 60
    while not ledger_in(tmp_path).of("state") and time.monotonic() < deadline:
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert "running at Planet" in history.status(ledger_in(tmp_path))[0]
    assert bring(planet, tmp_path).files == 4
    assert planet.posts() == 1


def test_what_did_not_come_is_ordered_once_more(tmp_path, planet):
    ids = planet.add_many(4)
    planet.control(failing_once=ids[:1])
    place(planet, tmp_path, ids)
    notes = []
    received = bring(planet, tmp_path, note=notes.append)
    assert received.missing == received.faults == []
    assert received.files == 16
    assert planet.posts() == 2
    assert sorted(charge["item"] for charge in planet.charged["items"]) == ids
    assert f"did not bring {ids[0]}: {ids[0]}: asset could not be made" in " ".join(notes)
    assert any("asked for once more" in line for line in history.status(ledger_in(tmp_path)))


@pytest.mark.parametrize("share", [1, 4])
def test_what_never_comes_is_ordered_twice_and_then_named(tmp_path, planet, share):
    ids = planet.add_many(4)
    planet.control(failing=ids[:share])
    place(planet, tmp_path, ids)
    for _ in range(2):
        received = bring(planet, tmp_path)
        assert len(received.missing) == share
        assert "asset could not be made" in received.missing[0]
        place(planet, tmp_path, ids)
    assert planet.posts() == 2
    assert len(planet.charged["items"]) == 4 - share
    assert sum("asked for twice" in line for line in history.status(ledger_in(tmp_path))) == share


def test_a_second_order_that_is_refused_or_too_dear_does_not_keep_the_rest(tmp_path, planet):
    ids = planet.add_many(3)
    planet.control(failing_once=ids[:1])
    place(planet, tmp_path, ids)
    planet.control(quota_km2=0)
    received = bring(planet, tmp_path)
    assert received.files == 8
    assert "quota" in received.faults[0]
    assert ids[0] in received.missing[0]
    assert planet.posts() == 2
    planet.control(quota_km2=None, lost=["before"] * 5)
    assert "lost 5 times" in bring(planet, tmp_path).faults[0]
    assert bring(planet, tmp_path).files == 12
    assert sorted(charge["item"] for charge in planet.charged["items"]) == ids


def test_a_cancelled_order_is_said_and_can_be_placed_again(tmp_path, planet):
    planet.control(states=["cancelled"])
    ids = planet.add_many(1)
    place(planet, tmp_path, ids)
    notes = []
    assert bring(planet, tmp_path, note=notes.append).files == 0
    assert "was cancelled" in " ".join(notes)
    before = len(planet.log)
    bring(planet, tmp_path)
    assert len(planet.log) == before
    planet.control(states=["success"])
    place(planet, tmp_path, ids)
    assert bring(planet, tmp_path).files == 4


@pytest.mark.parametrize("status", [401, 403])
def test_an_expired_link_costs_one_look_at_the_order(tmp_path, planet, status):
    ids = planet.add_many(2)
    place(planet, tmp_path, ids)
    planet.control(expired={f"{ids[0]}_3B_Ana": 1}, expired_status=status)
    before = len(planet.log)
    assert bring(planet, tmp_path).faults == []
    looks = [entry for entry in planet.log[before:] if "/orders/v2" in entry["path"]]
    assert len(looks) == 2
    assert planet.posts() == 1
    assert_is_as_the_manifest_says(tmp_path)


@pytest.mark.parametrize(("ahead_s", "zone"), [(86400, "UTC"), (-86400, "UTC"), (0, "Asia/Kamchatka")])
def test_ages_go_by_the_clock_of_the_service(tmp_path, planet, monkeypatch, ahead_s, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        planet.control(clock_s=ahead_s)
        place(planet, tmp_path, planet.add_many(2))
        assert bring(planet, tmp_path).faults == []
    finally:
        monkeypatch.undo()
        time.tzset()
    assert sum("/orders/v2/" in entry["path"] for entry in planet.log) == 1
    assert {entry["status"] for entry in downloads(planet)} == {200}


def test_links_that_live_for_no_time_end_with_a_sentence(tmp_path, planet):
    place(planet, tmp_path, planet.add_many(1))
    planet.control(link_s=-1)
    received = bring(planet, tmp_path)
    assert len(received.faults) == 1
    assert len(planet.log) < 30


@pytest.mark.parametrize(
    "fault",
    [
        {"rename": {"udm2": "../../../outside.tif"}},
        {"rename": {"udm2": "/tmp/outside.tif"}},
        {"rename": {"udm2": "PSScene\\..\\outside.tif"}},
        {"twice": "udm2"},
        {"rename": {"udm2": "PSScene/Twin.tif", "AnalyticMS_SR": "PSScene/twin.TIF"}},
        {"rename": {"udm2": "manifest.json"}},
        {"hidden": ["manifest.json"]},
    ],
)
def test_hostile_results_bring_nothing(tmp_path, planet, fault):
    folder = tmp_path / "data"
    place(planet, folder, planet.add_many(2))
    planet.control(**fault)
    received = bring(planet, folder)
    assert len(received.faults) == 1
    assert not [name for name in files_below(tmp_path) if name.endswith((".tif", ".TIF", ".part", ".xml"))]
    assert sum(entry["path"] == "/compute/ops/download/" for entry in planet.log) <= 1
    planet.control(rename={}, twice="", hidden=[])


def test_a_foreign_host_gets_no_key_and_no_request(tmp_path, planet):
    place(planet, tmp_path, planet.add_many(1))
    with fake_planet() as foreign:
        planet.control(foreign=foreign.address)
        received = bring(planet, tmp_path)
        assert "leads to 127.0.0.1" in received.faults[0]
        assert foreign.log == []


def test_the_key_does_not_follow_a_redirect_to_storage(tmp_path, planet):
    planet.control(redirect=True)
    place(planet, tmp_path, planet.add_many(1))
    assert bring(planet, tmp_path).files == 4
    assert {(entry["host"], entry["authorised"]) for entry in downloads(planet)} == {
        ("127.0.0.1", True),
        ("localhost", False),
    }


@pytest.mark.parametrize("fault", ["wrong_sha256", "wrong_size"])
def test_what_differs_from_the_manifest_gets_no_name(tmp_path, planet, fault):
    ids = planet.add_many(2)
    place(planet, tmp_path, ids)
    planet.control(**{fault: f"{ids[0]}_3B_udm2"})
    received = bring(planet, tmp_path)
    assert len(received.faults) == 1
    assert ids[0] in received.faults[0]
    assert not list(tmp_path.rglob(f"{ids[0]}_3B_udm2_clip.tif"))
    assert "fetch' brings it" in history.status(ledger_in(tmp_path))[0]


def test_an_order_that_planet_does_not_know_any_more_is_said(tmp_path, planet):
    place(planet, tmp_path, planet.add_many(1))
    planet.reset()
    assert "Could not load order" in bring(planet, tmp_path).faults[0]


def test_a_body_that_is_cut_goes_on_where_it_broke(tmp_path, planet):
    (id_,) = planet.add_many(1)
    planet.control(scenes=[], cut={f"{id_}_3B_udm2": [700]})
    place(planet, tmp_path, [id_])
    assert bring(planet, tmp_path).faults == []
    assert_is_as_the_manifest_says(tmp_path)
    assert any(entry["range"] == "bytes=700-" for entry in downloads(planet))


def test_an_order_without_metadata_but_with_a_manifest_alone_is_missing(tmp_path, planet):
    ids = planet.add_many(2)
    planet.control(failing=ids, states=["success"])
    place(planet, tmp_path, ids)
    assert len(bring(planet, tmp_path).missing) == 2


def test_no_key_token_or_signed_link_is_in_any_file_message_or_log(tmp_path, planet, caplog):
    caplog.set_level(logging.DEBUG)
    ids = planet.add_many(3)
    planet.control(lost=["after"], failing_once=ids[:1], expired={"udm2": 1}, wrong_sha256=f"{ids[1]}_3B_udm2")
    notes = []
    place(planet, tmp_path, ids)
    received = bring(planet, tmp_path, note=notes.append)
    texts = [*notes, *received.faults, *received.missing, caplog.text, *history.status(ledger_in(tmp_path))]
    texts += [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    assert len(texts) > 10
    assert not [text for text in texts if KEY in text or "SECRET" in text]
