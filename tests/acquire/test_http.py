"""Requests to services that are busy, lie, break off or lead elsewhere, each a real process on loopback."""

import itertools
import logging
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from file_server import file_server
from hypothesis import given
from hypothesis import strategies as st
from serving import free_port

from thawmap.acquire import pacing
from thawmap.acquire.addresses import origin, origins
from thawmap.acquire.answers import Stopped, without_query, without_secrets
from thawmap.acquire.http import AnswerLost, Http, PatienceEnded, Refused
from thawmap.acquire.pacing import Pace
from thawmap.errors import ConfigError, ServiceError

KEY = "PLAKplantedkey0123456789"
FAST = 1e6


class ApiKey(httpx.Auth):
    def auth_flow(self, request):
        request.headers["Authorization"] = f"api-key {KEY}"
        yield request


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with file_server(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    with file_server(tmp_path_factory.mktemp("elsewhere")) as server:
        server.put("a", b"foreign")
        yield server


@pytest.fixture
def server(running, monkeypatch):
    monkeypatch.setattr(pacing, "FIRST_S", 0.01)
    running.clear()
    running.put("a", b'{"an": "answer"}')
    return running


@pytest.fixture
def http(server):
    with Http(rates={server.host: FAST}, timeout_s=20) as http:
        yield http


def test_a_get_gives_status_body_headers_and_the_services_clock(server, http):
    server.control(date="Tue, 01 Dec 2026 00:00:00 GMT")
    answer = http.get(f"{server.address}/a?one=1", params={"two": 2}, headers={"X-Mine": "3"})
    assert (answer.status, answer.json(), answer.url) == (200, {"an": "answer"}, f"{server.address}/a")
    assert answer.date.isoformat() == "2026-12-01T00:00:00+00:00"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    (entry,) = server.log("a")
    assert (entry["query"], entry["headers"]["x-mine"]) == ("one=1&two=2", "3")


def test_a_storm_of_429_ends_well_and_no_request_comes_before_its_time(server, http):
    """30 of 40 answers: Retry-After first, then none; the server's own log tells when requests came."""
    busy = [{"status": 429, "headers": {"Retry-After": "0.1"}}] * 3
    storm = [*busy, {"status": 429}, None] * 7 + [busy[0]] * 2 + [None] * 3
    server.fail("a", *storm)
    for _ in range(10):
        assert http.get(f"{server.address}/a").status == 200
    log = server.log("a")
    assert [entry["status"] for entry in log].count(429) == 30
    assert len(log) == 40
    for fault, entry, following in zip(storm, log, log[1:], strict=False):
        if fault:
            assert following["time"] - entry["time"] >= (0.1 if "headers" in fault else 0.01)


def test_one_wait_holds_all_threads_of_an_endpoint(server, http):
    """One thread is told to wait; what the others send comes after that time."""
    server.fail("a", {"status": 429, "headers": {"Retry-After": "1"}})
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(http.get, f"{server.address}/a")
        while not (http._paces and http._paces[server.host]._not_before > 0):
            time.sleep(0.01)
        answers = list(pool.map(lambda _: http.get(f"{server.address}/a"), range(12)))
    assert {answer.status for answer in [*answers, first.result()]} == {200}
    told, *others = (entry["time"] for entry in server.log("a"))
    assert len(others) == 13
    assert min(others) >= told + 1


def test_a_wait_of_one_endpoint_does_not_hold_another(server, http):
    server.fail("a", {"status": 429, "headers": {"Retry-After": "3600"}})
    waiting = threading.Event()
    thread = threading.Thread(target=lambda: _expect_stop(http, f"{server.address}/a", waiting))
    thread.start()
    while not server.log("a"):
        time.sleep(0.01)
    assert http.get(f"{server.address}/a", endpoint="other").status == 200
    waiting.set()
    thread.join(10)
    assert not thread.is_alive()


def _expect_stop(http, url, stop):
    with pytest.raises(Stopped), http.stream(url, stop=stop):
        pass


@pytest.mark.parametrize("clock", ["Mon, 30 Nov 2026 10:00:00 GMT", "Fri, 01 Jan 2038 10:00:00 GMT"])
def test_a_date_in_retry_after_counts_from_the_services_clock(server, http, clock):
    """Ours may be wrong by days."""
    server.control(date=clock)
    server.fail("a", {"status": 503, "headers": {"Retry-After": clock.replace(":00 GMT", ":01 GMT")}})
    started = time.monotonic()
    assert http.get(f"{server.address}/a").status == 200
    assert 1 <= time.monotonic() - started < 20


@pytest.mark.parametrize("text", ["soon", "-5", "nan", "inf", "Tue, 99 Dec 2026 00:00:00 GMT", ""])
def test_a_retry_after_without_sense_is_as_none(server, http, text):
    server.fail("a", {"status": 429, "headers": {"Retry-After": text}})
    assert http.get(f"{server.address}/a").status == 200


def test_threads_together_keep_the_rate_of_an_endpoint(server):
    with Http(rates={"slow": 40}) as http, ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        list(pool.map(lambda _: http.get(f"{server.address}/a", endpoint="slow"), range(13)))
        assert time.monotonic() - started >= 12 / 40


@given(st.lists(st.floats(0, 3), max_size=30), st.floats(0.5, 50))
def test_turns_are_never_closer_than_the_rate_allows(steps, rate):
    now = 0.0
    pace = Pace("x", rate=rate, patience_s=1e9, clock=lambda: now)
    turns = []
    for step in steps:
        now += step
        if pace.delay() == 0:
            turns.append(now)
    assert all(later - earlier >= 1 / rate - 1e-9 for earlier, later in itertools.pairwise(turns))


def test_waits_that_nobody_asks_for_double_once_for_all_that_were_on_their_way():
    now = 100.0
    pace = Pace("x", rate=1, patience_s=1e9, clock=lambda: now)
    waits = []
    for _ in range(9):
        waits.append(pace.pause(sent=now, wait_s=None))
        assert pace.pause(sent=now - 1, wait_s=None) == waits[-1]  # sent before the first was answered
        now += waits[-1]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    pace.succeeded()
    now += 100
    assert pace.pause(sent=now, wait_s=None) == 1


def test_patience_ends_with_a_sentence(server):
    with Http(rates={server.host: FAST}, patience_s=60) as http:
        server.fail("a", {"status": 429, "headers": {"Retry-After": "3600"}})
        with pytest.raises(
            PatienceEnded, match=r".it answers 429.* 3600 s, with patience for 60 s in all; run the same"
        ):
            http.get(f"{server.address}/a")
        with pytest.raises(PatienceEnded):  # at once, and unasked
            http.get(f"{server.address}/a")
        assert len(server.log("a")) == 1
    with Http(rates={server.host: FAST}, patience_s=0.3) as http:
        server.fail("a", *[{"status": 503}] * 100)
        with pytest.raises(PatienceEnded):
            http.get(f"{server.address}/a")
        assert 2 <= len(server.log("a")) < 100


def test_a_long_silence_between_requests_is_no_impatience(server):
    now = 0.0
    pace = Pace("x", rate=1, patience_s=10, clock=lambda: now)
    pace.failed(sent=0, answered=False)
    now = 1000.0
    assert pace.delay() == 0


def test_patience_of_nought_is_one_try(server):
    with Http(rates={server.host: FAST}, patience_s=0) as http:
        assert http.get(f"{server.address}/a").status == 200
        server.fail("a", {"status": 502})
        with pytest.raises(PatienceEnded):
            http.get(f"{server.address}/a")


@pytest.mark.parametrize("fault", [{"after": True}, {"status": 503}, {"status": 500}, {"cut": 3}, {"drop": True}])
def test_a_post_that_may_have_arrived_is_not_repeated(server, http, fault):
    server.fail("orders", fault)
    with pytest.raises(AnswerLost, match=r"may or may not have arrived .* look it up before asking again"):
        http.post(f"{server.address}/orders", {"name": "x"}, repeat=False)
    assert len(server.log("orders")) == 1


def test_a_post_that_was_surely_not_taken_is_repeated(server, http):
    server.fail("orders", {"status": 429, "headers": {"Retry-After": "0"}}, {"status": 429})
    assert http.post(f"{server.address}/orders", {"name": "x"}, repeat=False).json() == {"count": 1}
    assert [entry["body"] for entry in server.log("orders")] == ['{"name":"x"}'] * 3


def test_a_search_is_repeated_whatever_breaks(server, http):
    server.fail("search", {"after": True}, {"status": 502}, {"drop": True}, {"cut": 3}, {"status": 429})
    assert http.post(f"{server.address}/search", {"limit": 1}, repeat=True).json() == {"count": 3}
    assert len(server.log("search")) == 6


def test_a_put_is_repeated(server, http):
    server.fail("orders/1", {"status": 503}, {"drop": True})
    assert http.put(f"{server.address}/orders/1").status == 200
    assert [entry["method"] for entry in server.log("orders/1")] == ["PUT"] * 3


def test_nobody_there_is_said_soon(server, http):
    address = f"http://127.0.0.1:{free_port()}/x?token={KEY}"
    with pytest.raises(ServiceError, match=r"reaches nobody .*check the address and the network") as raised:
        http.get(address)
    assert KEY not in str(raised.value)
    assert not isinstance(raised.value, PatienceEnded)


def test_an_error_that_never_passes_ends_after_some_tries_while_the_service_is_well(server, http):
    server.fail("bad", *[{"status": 500, "body": '{"message": "Problem confirming products"}'}] * 20)
    with pytest.raises(Refused, match=r"refused with 500: .*Problem confirming products") as raised:
        http.get(f"{server.address}/bad")
    assert raised.value.status == 500
    assert len(server.log("bad")) == 8


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, '{"general": [{"message": "Unable to accept order"}]}', "Unable to accept order"),
        (401, "", "no word of why; check the credentials"),
        (403, "<html><head></head><body><b>Forbidden</b>\x1b[2J</body></html>", r"403: Forbidden \\x1b"),
        (404, "nothing", "check the address"),
        (409, "{}", "see what is there already"),
    ],
)
def test_a_refusal_says_what_the_service_says(server, http, status, body, says):
    server.fail("a", {"status": status, "body": body})
    with pytest.raises(Refused, match=says) as raised:
        http.get(f"{server.address}/a")
    assert raised.value.status == status
    assert len(server.log("a")) == 1


@pytest.mark.parametrize("body", ["", "<html>We are down</html>", '{"cut": ', "[" * 100_000])
def test_an_answer_that_is_no_json_is_a_sentence(server, http, body):
    server.put("a", body.encode())
    with pytest.raises(ServiceError, match="where JSON is expected"):
        http.get(f"{server.address}/a").json()


@pytest.mark.parametrize("address", ["", "ftp://a.org/x", "a.org/x", "https://", "http://[::1", "http://a b/", None])
def test_what_is_no_address_is_a_sentence(http, address):
    with pytest.raises(ServiceError, match="is no address"):
        http.get(address)


def test_a_key_goes_to_its_own_host_only(server, elsewhere):
    """Another port is another host; a key comes back when a redirect leads back."""
    elsewhere.clear()
    with Http(credentials={server.host: ApiKey()}, rates={server.host: FAST}) as http:
        for ask in (http.get, lambda url, **words: _streamed(http, url, **words)):
            server.fail("a", {"redirect": f"{elsewhere.address}/a"})
            ask(f"{server.address}/a", headers={"X-Subscription-Key": KEY, "Range": "bytes=0-"})
            ask(f"{elsewhere.address}/a")
            server.fail("a", {"redirect": f"{server.address}/a"}, {"redirect": f"{elsewhere.address}/back"})
            elsewhere.fail("back", {"redirect": f"{server.address}/a"})
            ask(f"{server.address}/a")
    assert KEY not in str(elsewhere.log())
    assert len(elsewhere.log()) == 6
    assert elsewhere.log("a")[0]["headers"]["range"] == "bytes=0-"
    assert [entry["headers"].get("authorization") for entry in server.log("a")] == [f"api-key {KEY}"] * 8


def _streamed(http, url, **words):
    with http.stream(url, **words) as response:
        return b"".join(map(bytes, response.iter_raw()))


def test_a_key_belongs_to_a_scheme_and_a_port():
    """Unencrypted it is sent to this machine itself only."""
    assert origins("api.planet.com") == [("https", "api.planet.com", 443)]
    assert origin(httpx.URL("http://api.planet.com/x")) not in origins("api.planet.com")
    assert origin(httpx.URL("https://api.planet.com:8443/x")) not in origins("api.planet.com")
    assert origin(httpx.URL("https://api.planet.com.evil.org/x")) not in origins("api.planet.com")
    assert origins("API.planet.com:8443") == [("https", "api.planet.com", 8443)]
    assert ("http", "127.0.0.1", 99) in origins("127.0.0.1:99")
    assert origins("http://proxy.org:8080") == [("http", "proxy.org", 8080)]
    for wrong in ("", "http://", "a b", "x:y"):
        with pytest.raises(ConfigError, match="names no host"):
            Http(credentials={wrong: ApiKey()})


def test_a_post_is_not_led_elsewhere(server, elsewhere):
    elsewhere.clear()
    with Http(credentials={server.host: ApiKey()}, rates={server.host: FAST}) as http:
        server.fail("o", {"redirect": f"{elsewhere.address}/o", "status": 307})
        with pytest.raises(Refused, match=r"leads to .*/o"):
            http.post(f"{server.address}/o", {}, repeat=False)
        server.fail("o", {"redirect": f"{server.address}/p", "status": 302})
        with pytest.raises(Refused):
            http.post(f"{server.address}/o", {}, repeat=False)
        server.fail("o", {"redirect": f"{server.address}/p/", "status": 307})
        assert http.post(f"{server.address}/o", {"a": 1}, repeat=False).json() == {"count": 1}
        assert server.log("p/")[0]["body"] == '{"a":1}'
    assert elsewhere.log() == []


def test_redirects_in_a_circle_end(server, http):
    server.fail("a", *[{"redirect": "/a"}] * 30)
    with pytest.raises(ServiceError, match="redirected 10 times"):
        http.get(f"{server.address}/a")


def test_no_cookie_is_kept(server, http):
    server.fail("a", {"headers": {"Set-Cookie": f"session={KEY}"}})
    for _ in range(2):
        http.get(f"{server.address}/a")
    assert not any("cookie" in entry["headers"] for entry in server.log())


def test_no_secret_stands_in_logs_messages_and_tracebacks(server, elsewhere, caplog):
    """The planted key is in the header, in signed addresses, in redirects, and in what services repeat."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore.http11", "httpcore.connection", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.DEBUG)
    notes, errors = [], []
    with Http(credentials={server.host: ApiKey()}, rates={server.host: FAST}, patience_s=1, note=notes.append) as http:
        signed = f"http://me:{KEY}@{server.host}/a?token={KEY}&X-Amz-Signature={KEY}#{KEY}"
        faults = [
            {"status": 403, "body": f"wrong key {KEY}"},
            {"status": 403, "body": f"<Error><Code>Denied</Code><StringToSign>{KEY}2</StringToSign></Error>"},
            {"status": 400, "body": f"see https://x.org/?sig={KEY}9 or Bearer {KEY}8, sig={KEY}7"},
            {"redirect": f"http://{elsewhere.host}/none?token={KEY}"},
            {"redirect": f"ftp://x/?token={KEY}"},
            {"status": 429, "headers": {"Retry-After": "3600"}},
        ]
        for fault in faults:
            server.fail("a", fault)
            try:
                http.get(signed)
            except ServiceError as error:
                errors += ["".join(traceback.format_exception(error)), repr(error), repr(getattr(error, "answer", ""))]
        assert len(errors) == 3 * len(faults)
        shown = [caplog.text, repr(http), str(http), *notes, *errors]
    assert KEY not in "\n".join(shown)
    assert "thawmap.acquire.http" in caplog.text


def test_texts_lose_their_secrets():
    assert without_query("https://u:p@h.org:1/a;jsessionid=3?x=1#y") == "https://h.org:1/a"
    assert without_query("not an address?x=1") == "not an address"
    assert without_query("http://[") == "an address that is none"
    assert without_secrets("eyJhbGciOi.eyJzdWIiOi.c2ln in https://a.org/b?c=d") == "... in https://a.org/b"


def test_long_waits_are_noted(server, monkeypatch):
    notes = []
    with Http(rates={server.host: FAST}, patience_s=100, note=notes.append) as http:
        server.fail("a", {"status": 429, "headers": {"Retry-After": "7"}})
        stop = threading.Event()
        thread = threading.Thread(target=lambda: _expect_stop(http, f"{server.address}/a", stop))
        thread.start()
        while not notes:
            time.sleep(0.01)
        stop.set()
        thread.join(10)
    assert notes == ["127.0.0.1: it answers 429; going on in 7 s"]


def test_a_closed_one_ends_all_waits(server):
    http = Http(rates={server.host: FAST})
    server.fail("a", {"status": 429, "headers": {"Retry-After": "3600"}})
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(http.get, f"{server.address}/a")
        while not server.log("a"):
            time.sleep(0.01)
        http.close()
        assert isinstance(future.exception(10), Stopped)
