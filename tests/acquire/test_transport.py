"""Large bodies over TLS and through a proxy, from real servers on loopback."""

import shutil
import subprocess

import httpx
import pytest
from file_server import file_server

from thawmap.acquire.download import Wanted, download
from thawmap.acquire.http import Http
from thawmap.acquire.ledger import Ledger
from thawmap.errors import ServiceError

CONTENT = bytes(range(256)) * 5000
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on PATH")


class ApiKey(httpx.Auth):
    def auth_flow(self, request):
        request.headers["Authorization"] = "api-key PLANTED"
        yield request


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    path = tmp_path_factory.mktemp("certificate") / "own.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=own -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*words.split(), "-keyout", path, "-out", f"{path}.crt"], check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name("own.pem.crt").read_text())
    return path


@pytest.fixture(scope="module")
def secure(certificate, tmp_path_factory):
    with file_server(tmp_path_factory.mktemp("secure"), certificate) as server:
        server.put("a", CONTENT)
        yield server


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with file_server(tmp_path_factory.mktemp("plain")) as server:
        server.put("a", CONTENT)
        yield server


def fetched(http, url, root):
    (landed,) = download(http, [Wanted(url=url, path=root / "a")], ledger=Ledger.open(root / "l"), root=root)
    if landed.error:
        raise landed.error
    return landed.wanted.path.read_bytes()


@needs_openssl
def test_a_download_over_tls_goes_on_where_it_was_cut(secure, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure.clear()
    with Http(rates={secure.host: 1e6}) as http:
        secure.fail("a", {"cut": 300_000})
        assert fetched(http, f"{secure.address}/a", tmp_path) == CONTENT
    assert [entry["headers"].get("range") for entry in secure.log("a")] == [None, "bytes=300000-"]


@needs_openssl
def test_a_certificate_of_nobody_is_said(secure, tmp_path):
    with Http(rates={secure.host: 1e6}, patience_s=0) as http:
        for ask in (lambda: http.get(f"{secure.address}/a"), lambda: fetched(http, f"{secure.address}/a", tmp_path)):
            with pytest.raises(ServiceError, match=r"(?i)certificate"):
                ask()


@needs_openssl
def test_a_redirect_from_tls_to_none_takes_no_key_along(secure, plain, certificate, tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    secure.clear()
    plain.clear()
    with Http(credentials={secure.host: ApiKey()}, rates={secure.host: 1e6, plain.host: 1e6}) as http:
        secure.fail("a", *[{"redirect": f"{plain.address}/a"}] * 2)
        assert http.get(f"{secure.address}/a").content == CONTENT
        assert fetched(http, f"{secure.address}/a", tmp_path) == CONTENT
    assert [entry["headers"].get("authorization") for entry in secure.log()] == ["api-key PLANTED"] * 2
    assert [entry["headers"].get("authorization") for entry in plain.log()] == [None] * 2


def test_a_download_goes_through_the_proxy_of_the_environment(plain, tmp_path, monkeypatch):
    plain.clear()
    monkeypatch.setenv("http_proxy", plain.address)
    with Http() as http:
        assert fetched(http, "http://data.example.org/a", tmp_path) == CONTENT
    monkeypatch.undo()
    (entry,) = plain.log("a")
    assert entry["headers"]["host"] == "data.example.org"


def test_connections_are_kept(plain, tmp_path):
    """One after the other, files of one host come over one connection: its port stays."""
    plain.clear()
    with Http(rates={plain.host: 1e6}) as http:
        for index in range(3):
            assert fetched(http, f"{plain.address}/a", tmp_path / str(index)) == CONTENT
    assert len({entry["port"] for entry in plain.log("a")}) == 1
