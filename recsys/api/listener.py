"""Where a server listens, and how that begins and ends."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from recsys.errors import InputError

BACKLOG = 2048
# What requests under way have when the server is told to end.
SECONDS_TO_FINISH = 10
_MAX_PORT = 65_535


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host:port``; port 0 takes any free one.

    Raises:
        InputError: when the port is impossible, or the address taken or not this machine's.
    """
    if not 0 <= port <= _MAX_PORT:
        raise InputError(f"a port in 0..{_MAX_PORT}", str(port), "set port=8000")
    with _taking(host, port):
        listener = socket.create_server((host, port), family=_family(host), backlog=BACKLOG)
    _send_at_once(listener)
    return listener


def reserve(host: str, port: int) -> socket.socket:
    """A socket that keeps ``host:port`` for ``listen_beside``, and takes no connection itself.

    Raises:
        InputError: as ``listen`` does, and where addresses cannot be shared.
    """
    if not hasattr(socket, "SO_REUSEPORT"):
        raise InputError("a system on which processes can share a port", "another", "set workers=1")
    # Other servers of this user that share their port would not keep a sharing socket out.
    with listen(host, port) as alone:
        address = alone.getsockname()[:2]
    return _shared(*address)


def listen_beside(host: str, port: int) -> socket.socket:
    """A socket that listens on a reserved address, beside those of other processes.

    The kernel deals connections out to such sockets by a hash. On one socket that all workers
    listen on, whoever wakes up first takes all that wait: of 16 connections opened at once one of
    two workers got 16, and lists per second fell by 40%.

    Raises:
        InputError: when another server has begun to listen there since it was reserved.
    """
    listener = _shared(host, port)
    with _taking(host, port):
        listener.listen(BACKLOG)
    _send_at_once(listener)
    return listener


def announce(version: str, device: str, listener: socket.socket) -> None:
    """The line that tells people and scripts that requests are answered from now on."""
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    # Flushed, so that a script that waits for this line sees it through a pipe. Nobody may, nor may
    # there be room on the disk for it.
    with suppress(OSError):
        print(f"Serving {version} on {device}: {url} (API: {url}/docs)", flush=True)


def _shared(host: str, port: int) -> socket.socket:
    bound = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if bound.family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with _taking(host, port):
            bound.bind((host, port))
    except BaseException:
        bound.close()
        raise
    return bound


def _send_at_once(listener: socket.socket) -> None:
    """Have the connections that it accepts send small parts without waiting for the client's word.

    uvicorn sends an answer's head and body apart. asyncio's own event loop, used where uvloop is
    not, leaves accepted sockets as they are, and each answer then took 40 ms.
    """
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextmanager
def _taking(host: str, port: int) -> Iterator[None]:
    """Turn what the system says of the address into an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"an address to listen on in host={host} port={port}",
            (error.strerror or str(error)).lower(),
            "stop what listens there, or set another port= or host=",
        ) from error


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
