"""Who may ask: hosts, origins, the token, and connections that say nothing."""

from __future__ import annotations

import socket
import ssl
import subprocess
import time

import httpx
import pytest
from support.served import served

from defectrt.apps.service import connection
from defectrt.apps.service.config import ServeConfig
from defectrt.apps.service.errors import without_paths
from defectrt.apps.service.server import run
from defectrt.config.engine import EngineConfig
from defectrt.errors import InputError, OutputError, UsageError

TOKEN = "0123456789abcdefTOKEN"


@pytest.fixture
def client(fake_engine):
    with served(fake_engine[0], allow_host=("line.example",)) as (client, _):
        yield client


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:80", 200),
        ("10.1.2.3", 200),
        ("line.example:8765", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example:localhost", 421),
        ("localhost@evil.example", 421),
        ("line.example.", 421),
        ("127.0.0.1.nip.example", 421),
        ("2130706433", 421),
        ("[::1", 200),
        ("[evil]", 421),
        ("", 421),
    ],
)
def test_a_name_that_is_not_ours_is_refused(client, host, status):
    assert client.get("/v1/engines", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 200),
        ("http://localhost:3000", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
        ("http://localhost@evil.example", 403),
    ],
)
def test_a_page_of_elsewhere_may_not_ask(client, origin, status):
    headers = {"host": "localhost", "origin": origin}
    assert client.get("/v1/engines", headers=headers).status_code == status


def test_what_decides_is_said_once(client):
    for name, value in (("Origin", "http://localhost"), ("Authorization", "Bearer x")):
        twice = [("Host", "localhost"), (name, value), (name, value)]
        assert client.get("/v1/engines", headers=twice).status_code == 400


def test_all_but_the_watchers_need_the_token(fake_engine, token_file):
    with served(fake_engine[0], token_file=token_file) as (client, _):
        for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in ("/v1/engines", "/metrics", "/v1/jobs", "/", "/static-offline-docs"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for wrong in ("", "Bearer", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN):
            headers = {"authorization": wrong}
            assert client.get("/v1/engines", headers=headers).status_code == 401
        right = {"authorization": f"bearer {TOKEN}"}
        assert client.get("/v1/engines", headers=right).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/static-offline-docs/../v1/engines",
        "/static-offline-docs/%2e%2e/v1/engines",
        "/static-offline-docs/..%2f..%2f..%2fetc/passwd",
        "/static-offline-docs//etc/passwd",
        "/docs/../v1/engines",
        "/healthz/../v1/engines",
    ],
)
def test_no_path_leads_around_the_token(fake_engine, token_file, path):
    with served(fake_engine[0], token_file=token_file) as (client, _):
        address = client.base_url.host, client.base_url.port
        with socket.create_connection(address, timeout=20) as raw:
            raw.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = raw.recv(4096)
    assert answer.split()[1] in (b"401", b"404")


def test_a_body_has_one_length(client):
    address = client.base_url.host, client.base_url.port
    with socket.create_connection(address, timeout=20) as raw:
        raw.sendall(
            b"POST /v1/synthesize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        )
        assert raw.recv(4096).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("text", ["short", "with spaces in its middle", ""])
def test_a_token_that_can_be_guessed_is_refused(tmp_path, text):
    (tmp_path / "token").write_text(text)
    with pytest.raises(InputError, match="at least 16"):
        run(ServeConfig(token_file=tmp_path / "token"), EngineConfig())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"host": "0.0.0.0"}, "token-file"),
        ({"host": "::"}, "token-file"),
        ({"host": "line.example"}, "token-file"),
        ({"tls_cert": "cert.pem"}, "both or none"),
        ({"jobs": "jobs"}, "images"),
        ({"images": {"a": "b"}}, "jobs"),
        ({"queue": 0}, "queue"),
        ({"port": 65536}, "port"),
        ({"colour": "red"}, "colour: unknown key"),
    ],
)
def test_options_that_are_not_possible(options, match):
    with pytest.raises(UsageError, match=match):
        ServeConfig(**options)


def test_an_address_that_is_taken_is_an_error_before_an_engine_is_opened(fake_engine):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OutputError, match="--port"):
            run(ServeConfig(port=taken.getsockname()[1]), EngineConfig())


def test_a_certificate_that_is_none_is_an_error(tmp_path):
    (tmp_path / "cert.pem").write_text("nothing")
    options = {"tls_cert": tmp_path / "cert.pem", "tls_key": tmp_path / "key.pem"}
    with pytest.raises(InputError, match="PEM"):
        run(ServeConfig(port=0, **options), EngineConfig())


@pytest.mark.slow
def test_https(fake_engine, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "
        f"/CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}".split(),
        check=True,
        capture_output=True,
    )
    with served(fake_engine[0], tls_cert=cert, tls_key=key) as (client, _):
        assert client.base_url.scheme == "https"
        trusted = ssl.create_default_context(cafile=cert)
        with httpx.Client(base_url=client.base_url, verify=trusted, trust_env=False) as safe:
            assert safe.get("/healthz").status_code == 200


def test_a_connection_that_says_nothing_or_never_ends_is_closed(client, monkeypatch):
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    address = client.base_url.host, client.base_url.port
    assert client.get("/healthz").status_code == 200
    for said in (b"", b"GET / HTTP/1.1\r\nHost: local"):
        with socket.create_connection(address, timeout=10) as raw:
            raw.sendall(said)
            assert closed(raw)
    with socket.create_connection(address, timeout=10) as raw:
        raw.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"alive" not in answer:
            answer += raw.recv(4096)
        raw.sendall(b"GET /heal")
        assert closed(raw)
    assert client.get("/healthz").status_code == 200


def closed(raw):
    """Whether the other side ends it in time."""
    start = time.monotonic()
    try:
        return raw.recv(1) == b"" and time.monotonic() - start < 5
    except ConnectionResetError:
        return True


def test_only_so_many_connections_are_open(client, monkeypatch):
    monkeypatch.setattr(connection, "MOST", 5)
    address = client.base_url.host, client.base_url.port
    assert client.get("/healthz").status_code == 200
    kept = [socket.create_connection(address, timeout=10) for _ in range(8)]
    assert client.get("/healthz").status_code == 200
    assert all(closed(raw) for raw in kept[:4])
    kept[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert kept[-1].recv(12) == b"HTTP/1.1 200"
    for raw in kept:
        raw.close()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/srv/engines/a/engine.json: damaged", "engine.json: damaged"),
        ("'/srv/x/y.png' and /data/z.png", "'y.png' and z.png"),
        (r"C:\srv\engines\engine.json: damaged", "engine.json: damaged"),
        ("sub/a.png: 3/4 of 10/12 and/or", "sub/a.png: 3/4 of 10/12 and/or"),
    ],
)
def test_texts_for_clients_have_no_paths(text, told):
    assert without_paths(text) == told


def test_folders_are_left_out_whole(tmp_path):
    folder = tmp_path / "with a space"
    assert without_paths(f"{folder}/sub/a.png: x; {folder}", [folder]) == (
        "sub/a.png: x; with a space"
    )
