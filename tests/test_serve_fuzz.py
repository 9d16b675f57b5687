"""Whatever comes through a socket, the server neither fails nor hangs, and goes on answering."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.test_serve_faults import ask, serving

SECONDS = 10
FUZZ = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def address(untrained_bundle: Path) -> Iterator[str]:
    with serving(untrained_bundle) as (_, address):
        yield address


@pytest.fixture(scope="module")
def string_address(string_id_bundle: Path) -> Iterator[str]:
    with serving(string_id_bundle) as (_, address):
        yield address


def talk(address: str, sent: bytes, patience: float) -> bytes:
    """What the server answers to these bytes.

    After ``patience`` seconds without a word the client sends no more, and a server that does not
    close the connection then hangs: it fails the test.
    """
    host, port = address.split(":")
    parts = []
    with socket.create_connection((host, int(port)), timeout=SECONDS) as connection:
        try:
            connection.sendall(sent)
            connection.settimeout(patience)
            try:
                while part := connection.recv(65536):
                    parts.append(part)
            except TimeoutError:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(SECONDS)
                while part := connection.recv(65536):
                    parts.append(part)
        except (ConnectionResetError, BrokenPipeError):
            pass  # a server may close on what it will not read
    return b"".join(parts)


def check(address: str, sent: bytes, patience: float = SECONDS) -> bytes:
    answer = talk(address, sent, patience)
    for line in answer.split(b"\r\n"):
        if line.startswith(b"HTTP/1.1 "):
            assert not line.startswith(b"HTTP/1.1 5"), (sent[:300], answer[:500])
    assert b"Traceback" not in answer
    return answer


@pytest.fixture(autouse=True)
def goes_on(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    name = "string_address" if "string_address" in request.fixturenames else "address"
    user = "u1" if name == "string_address" else "101"
    answer = ask(request.getfixturevalue(name), f"/recommend?user_id={user}&top_k=3")
    assert len(answer["top_items"]) == 3


NAMES = st.sampled_from(
    [
        "X-Deadline-Ms",
        "X-API-Key",
        "X-Request-ID",
        "Content-Length",
        "Transfer-Encoding",
        "Cookie",
        "Content-Type",
        "Accept",
        "Connection",
        "Expect",
        "Upgrade",
        "Host",
        "x",
        "X-Forwarded-For",
        "Origin",
        "Sec-Fetch-Site",
    ]
)
VALUES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"chunked",
            b"-1",
            b"0",
            b"1e999",
            b"nan",
            b"inf",
            b"99999999999999999999",
            b"100-continue",
            b"websocket",
            b"close",
            b"a" * 70_000,
            b"\xff\xfe",
            "é漢🎬".encode(),
            b"1, 2",
            b"",
        ]
    ),
)


@pytest.mark.slow
@FUZZ
@given(headers=st.lists(st.tuples(NAMES, VALUES), max_size=8), body=st.binary(max_size=200))
def test_odd_headers(address: str, headers: list[tuple[str, bytes]], body: bytes) -> None:
    lines = b"".join(name.encode() + b": " + value + b"\r\n" for name, value in headers)
    for start in (b"GET /recommend?user_id=101", b"POST /recommend", b"POST /admin/reload"):
        check(address, start + b" HTTP/1.1\r\nHost: localhost\r\n" + lines + b"\r\n" + body, 0.1)


@pytest.mark.slow
@FUZZ
@given(sent=st.one_of(st.binary(max_size=500), st.text(max_size=200).map(str.encode)))
@example(sent=b"\x16\x03\x01\x02\x00")
@example(sent=b"GET " + b"/a" * 50_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
@example(sent=b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
@example(sent=b"GET /recommend?user_id=101 HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 200_000)
@example(sent=b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
def test_no_http_at_all(address: str, sent: bytes) -> None:
    check(address, sent, 0.1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
FIELDS = st.sampled_from(["user_ids", "history", "exclude", "top_k", "with_titles", "name", "x"])
BODIES = st.one_of(
    st.dictionaries(FIELDS, JSON, max_size=5).map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=300),
    st.sampled_from(
        [
            b"[" * 100_000,
            b'{"history": [' + b"1," * 200_000 + b"1]}",
            b'{"history": [1e999]}',
            b'{"history": [NaN]}',
            b'{"user_ids": ["\\ud800"]}',
            b'{"user_ids": ["\\u0000"]}',
            b'{"user_ids": [101], "top_k": 1e3}',
            b'{"user_ids": [true]}',
            b"{" + b"\x00" * 50,
            b'{"history": ["' + b"x" * 1_200_000 + b'"]}',
        ]
    ),
)


def post(address: str, path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return check(address, head.encode() + body)


@pytest.mark.slow
@FUZZ
@given(body=BODIES)
@example(body=b'{"x": NaN}')
@example(body=b'{"\\ud800": 1, "top_k": "\\ud800"}')
def test_odd_bodies(address: str, body: bytes) -> None:
    for path in ("/recommend", "/admin/reload"):
        post(address, path, body)


@pytest.mark.slow
@FUZZ
@given(user=st.text(min_size=1, max_size=40), items=st.lists(st.text(max_size=20), max_size=5))
@example(user="u1\n", items=["‮", "\u0000"])
@example(user="🎬" * 30, items=["<script>alert(1)</script>"])
def test_ids_of_any_script(string_address: str, user: str, items: list[str]) -> None:
    encoded = quote(user, safe="", errors="surrogatepass")
    sent = (
        f"GET /recommend?user_id={encoded} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    answer = check(string_address, sent.encode())
    assert answer.split(b" ", 2)[1] in (b"200", b"400", b"422")
    body = json.dumps({"history": [*items, "i1"], "exclude": items}).encode()
    answer = post(string_address, "/recommend", body)
    assert answer.split(b" ", 2)[1] in (b"200", b"422")


QUERY = st.one_of(
    st.integers(-5, 2**70).map(str),
    st.sampled_from(["101", "007", "1e2", "+5", " 101", "101.0", "", "%31%30%31", "१०१", "0x1"]),
    st.text(max_size=12).map(lambda text: quote(text, errors="surrogatepass")),
)


@pytest.mark.slow
@FUZZ
@given(user_id=QUERY, top_k=QUERY, repeated=st.booleans(), first=st.booleans())
@example(user_id="101", top_k="5", repeated=False, first=True)
@example(user_id="101", top_k="5", repeated=True, first=False)
@example(user_id="999", top_k="10", repeated=False, first=False)
def test_the_short_way_answers_as_the_router_does(
    address: str, user_id: str, top_k: str, repeated: bool, first: bool
) -> None:
    """``with_titles=false`` changes nothing but the way that a request takes."""
    parts = [f"user_id={user_id}", f"top_k={top_k}"]
    query = "&".join((parts if first else parts[::-1]) + parts[:1] * repeated)
    found = []
    for more in ("", "&with_titles=false"):
        sent = (
            f"GET /recommend?{query}{more} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        head, _, body = check(address, sent.encode()).partition(b"\r\n\r\n")
        found.append((head.split(b" ", 2)[1], body))
    assert found[0] == found[1]
