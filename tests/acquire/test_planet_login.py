"""The login at Planet: which one is used is said, its value never is, and nobody is asked in a job."""

import json
import logging

import httpx
import pytest
from planet_fake import AREA, KEY, fake_planet, silent

from thawmap.acquire.planet.credentials import find_login
from thawmap.acquire.planet.search import find
from thawmap.errors import ConfigError

ADDRESS = "https://api.planet.com"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder, and no login in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PL_API_KEY", "PL_AUTH_API_KEY", "PL_AUTH_CLIENT_ID", "PL_AUTH_CLIENT_SECRET", "PL_AUTH_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_without_a_login_a_sentence_says_how_to_get_one(home):
    with pytest.raises(ConfigError, match=r"no credentials for Planet; run 'planet auth login', or set PL_API_KEY"):
        find_login(ADDRESS)


def test_a_key_of_the_environment_is_named_and_not_shown(home, monkeypatch):
    monkeypatch.setenv("PL_API_KEY", KEY)
    login = find_login(ADDRESS)
    assert login.kind == "the API key of PL_API_KEY"
    assert KEY not in repr(login)
    assert KEY not in repr(dict(login.by_host))
    assert list(login.by_host) == [ADDRESS]
    request = next(login.by_host[ADDRESS].auth_flow(httpx.Request("GET", ADDRESS)))
    assert request.headers["Authorization"] == f"api-key {KEY}"


def test_a_key_of_the_home_folder_is_used(home):
    (home / ".planet.json").write_text(json.dumps({"key": KEY}))
    assert find_login(ADDRESS).kind == "the API key of ~/.planet.json"


def test_a_machines_account_wins_over_a_key_and_that_is_said(home, monkeypatch):
    monkeypatch.setenv("PL_AUTH_CLIENT_ID", "machine-id")
    monkeypatch.setenv("PL_AUTH_CLIENT_SECRET", KEY)
    monkeypatch.setenv("PL_API_KEY", "another")
    kind = find_login(ADDRESS).kind
    assert "PL_AUTH_CLIENT_ID" in kind
    assert "PL_API_KEY is set too, and not used" in kind
    assert KEY not in kind


def test_an_expired_login_is_a_sentence(home, monkeypatch):
    profile = home / ".planet" / "mine"
    profile.mkdir(parents=True)
    client = {"client_type": "oidc_device_code", "auth_server": "http://127.0.0.1:1", "client_id": "x", "scopes": []}
    (profile / "auth_client.json").write_text(json.dumps(client))
    token = {"access_token": KEY, "token_type": "Bearer", "scope": "planet", "_iat": 1, "_exp": 2}
    (profile / "token.json").write_text(json.dumps(token))
    monkeypatch.setenv("PL_AUTH_PROFILE", "mine")
    with pytest.raises(ConfigError, match="has expired and cannot be renewed; run 'planet auth login'") as error:
        find_login(ADDRESS)
    assert KEY not in str(error.value)


def test_the_key_reaches_the_service_and_no_log(home, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("PL_API_KEY", KEY)
    with fake_planet() as planet:
        with planet.http(credentials=find_login(planet.address).by_host) as http:
            assert find(http, planet.settings, AREA, (), silent) == []
        assert [entry["authorised"] for entry in planet.log] == [True]
    assert KEY not in caplog.text
