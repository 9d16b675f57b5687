"""Clients that say too much, too little or nothing, at a real server around a small application."""

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from recsys.api import connections, http_server
from recsys.api.connections import MAX_HEAD_BYTES, MAX_PIPELINED, MAX_WIRE_BYTES, BoundedProtocol
from recsys.api.http_server import HttpServer, max_connections
from recsys.api.listener import listen

SECONDS = 20
"""Far more than anything here takes."""
FOR_EVER = 20 * MAX_WIRE_BYTES
GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"


class App:
    """Answers with what it is set to, once it has the body."""

    def __init__(self) -> None:
        self.body = b"hello"
        self.asked = 0
        self.left = 0
        self.go_on: threading.Event | None = None
        self.server: HttpServer

    async def __call__(self, scope, receive, send) -> None:
        assert scope["type"] == "http"
        self.asked += 1
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            more = message.get("more_body", False)
        if self.go_on is not None:
            await asyncio.to_thread(self.go_on.wait, SECONDS)
        headers = [(b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@pytest.fixture
def app() -> App:
    return App()


@contextmanager
def running(app: App) -> Iterator[tuple[str, int]]:
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="none", lifespan="off", log_config=None, access_log=False
    )
    with listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        server = app.server = HttpServer(config)
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        try:
            yield address
        finally:
            server.should_exit = server.force_exit = True
            thread.join(SECONDS)
            assert not thread.is_alive()


@pytest.fixture
def address(app: App) -> Iterator[tuple[str, int]]:
    with running(app) as address:
        yield address


def connect(address: tuple[str, int]) -> socket.socket:
    return socket.create_connection(address, timeout=SECONDS)


def read(connection: socket.socket) -> bytes:
    """All until the server closes."""
    found = b""
    try:
        while part := connection.recv(65536):
            found += part
    except ConnectionError:
        pass
    return found


def is_answered(address: tuple[str, int]) -> bool:
    with connect(address) as connection:
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        return read(connection).endswith(b"hello")


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize(
    "head",
    [
        GET + b"A: " + b"a" * MAX_HEAD_BYTES,
        GET + b"a" * MAX_HEAD_BYTES,
        b"GET /" + b"a" * MAX_HEAD_BYTES,
        GET + b"A: b\r\n" * 201 + b"\r\n",
        GET + b"A: " + b"a" * (MAX_HEAD_BYTES - 5) + b"\r\nB: b\r\n\r\n",
    ],
    ids=["value", "name", "path", "number", "complete"],
)
def test_a_head_that_is_too_large_is_refused(address, app: App, head: bytes) -> None:
    with connect(address) as connection:
        # More than the limit by a slice, which is what is looked at at a time.
        connection.sendall(head + (b"a" * 20_000 if not head.endswith(b"\r\n\r\n") else b""))
        assert read(connection).startswith(b"HTTP/1.1 431 ")
    assert app.asked == 0
    assert is_answered(address)


def sent_to(address: tuple[str, int], first: bytes, part: bytes, pause: float = 0.0) -> int:
    """Bytes that the server takes before it lets go of the connection; many if it never does."""
    sent = 0
    with connect(address) as connection:
        connection.sendall(first)
        try:
            while sent < FOR_EVER:
                connection.sendall(part)
                sent += len(part)
                time.sleep(pause)
        except ConnectionError:
            pass
    return sent


def test_a_head_without_end_is_cut_off(address) -> None:
    assert sent_to(address, GET + b"A: ", b"a" * 65536) < FOR_EVER


def test_a_large_head_within_the_limit_is_taken(address, app: App) -> None:
    with connect(address) as connection:
        connection.sendall(GET + b"A: " + b"a" * 60_000 + b"\r\nConnection: close\r\n\r\n")
        assert read(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "part", [b"1;" + b"e" * 5000 + b"\r\na\r\n", b"10000\r\n" + b"a" * 65536 + b"\r\n"]
)
def test_a_body_without_end_is_cut_off(address, part: bytes) -> None:
    assert sent_to(address, POST + b"Transfer-Encoding: chunked\r\n\r\n", part) < FOR_EVER
    assert is_answered(address)


def test_trailers_without_end_are_cut_off(address) -> None:
    first = POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n"
    assert sent_to(address, first, b"A: " + b"a" * 1000 + b"\r\n") < FOR_EVER


def test_who_asks_much_at_once_gets_some_of_it(address, app: App) -> None:
    app.go_on = threading.Event()
    with connect(address) as connection:
        connection.sendall((GET + b"\r\n") * 5000)
        until(lambda: app.asked > 0)
        app.go_on.set()
        answers = read(connection).count(b"HTTP/1.1 200 ")
    assert 1 <= answers <= MAX_PIPELINED + 1


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"", b""),
        (b"\r\n", b"HTTP/1.1 408 "),
        (b"GET / HT", b"HTTP/1.1 408 "),
        (POST + b"Content-Length: 100\r\n\r\n{", b"HTTP/1.1 408 "),
        (GET + b"\r\n", b"HTTP/1.1 200 "),
        (GET + b"\r\nGET", b"HTTP/1.1 200 "),
    ],
    ids=["nothing", "blank", "half a head", "half a body", "a request", "one and a half"],
)
def test_who_says_no_more_is_let_go(monkeypatch, app: App, said: bytes, answer: bytes) -> None:
    for name in ("SECONDS_FOR_HEAD", "SECONDS_FOR_BODY"):
        monkeypatch.setattr(connections, name, 0.2)
    with running(app) as address, connect(address) as connection:
        connection.sendall(said)
        found = read(connection)
        assert found.startswith(answer)
        assert is_answered(address)
    assert app.left == (said.startswith(POST))


def test_a_trickle_is_not_waited_for(monkeypatch, app: App) -> None:
    monkeypatch.setattr(connections, "SECONDS_FOR_HEAD", 0.5)
    with running(app) as address:
        assert sent_to(address, GET, b"A: b\r\n", pause=0.1) < MAX_HEAD_BYTES
    assert app.asked == 0


def test_a_long_answer_is_not_kept_for_who_does_not_read(monkeypatch, app: App) -> None:
    monkeypatch.setattr(connections, "SECONDS_TO_READ", 0.2)
    app.body = b"a" * 50_000_000
    with running(app) as address, connect(address) as connection:
        connection.sendall(GET + b"\r\n")
        until(lambda: app.asked == 1)
        until(lambda: not app.server.server_state.connections)
        found = read(connection)
    assert len(found) < len(app.body)


def test_a_long_answer_is_sent_whole_to_who_reads(app: App) -> None:
    app.body = b"a" * 20_000_000
    with running(app) as address, connect(address) as connection:
        connection.sendall(GET + b"Connection: close\r\n\r\n")
        assert len(read(connection)) > len(app.body)


def test_the_silent_make_room_for_others(monkeypatch, app: App) -> None:
    monkeypatch.setattr(http_server, "max_connections", lambda: 16)
    with running(app) as address:
        held = [connect(address) for _ in range(40)]
        for one in held[::2]:
            one.sendall(POST + b"Content-Length: 100\r\n\r\n{")
        for _ in range(5):
            assert is_answered(address)
        for one in held:
            one.close()


def test_who_is_being_answered_does_not_make_room(monkeypatch, app: App) -> None:
    monkeypatch.setattr(http_server, "max_connections", lambda: 4)
    app.go_on = threading.Event()
    with running(app) as address:
        asking = [connect(address) for _ in range(4)]
        for one in asking:
            one.sendall(GET + b"Connection: close\r\n\r\n")
        until(lambda: app.asked == 4)
        more = connect(address)
        more.sendall(GET + b"Connection: close\r\n\r\n")
        time.sleep(0.2)
        assert app.asked == 4
        app.go_on.set()
        for one in [*asking, more]:
            with one:
                assert read(one).endswith(b"hello")


def test_connections_leave_descriptors_for_all_else() -> None:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert 1 <= max_connections() <= max(1, limit // 2)
