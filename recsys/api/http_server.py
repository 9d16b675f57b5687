"""uvicorn's server with a bound on connections, so that descriptors are left for all else."""

import asyncio
import logging
import socket
import sys

import uvicorn

from recsys.api.connections import BoundedProtocol

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 4096
"""Of a worker; fewer where it may not have twice as many descriptors."""

_AT_ONCE = 64
_SECONDS_TO_RETRY = 0.05
_SECONDS_WITHOUT_DESCRIPTORS = 0.5
_SECONDS_BETWEEN_WARNINGS = 60.0
_SHARE_MADE_ROOM_FOR = 16
_TICKS_PER_SECOND = 10


def max_connections() -> int:
    """That a process may hold at a time."""
    if sys.platform == "win32":
        return MAX_CONNECTIONS
    import resource  # there is none elsewhere

    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, descriptors // 2))


class HttpServer(uvicorn.Server):
    """Accepts connections while there is room; else those whose clients are silent make room."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._acceptors: list[_Acceptor] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        if sockets is None or sys.platform == "win32":
            await super().startup(sockets)
            return
        await super().startup([])
        self._acceptors = [_Acceptor(self, listener) for listener in sockets]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more, and let what is under way end."""
        for acceptor in self._acceptors:
            acceptor.close()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Look after connections once a second."""
        if counter % _TICKS_PER_SECOND == 0:
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, BoundedProtocol):
                    connection.check(now)
        return await super().on_tick(counter)

    def protocol(self) -> BoundedProtocol:
        """For one more connection."""
        return BoundedProtocol(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )


class _Acceptor:
    """Takes connections from a listening socket."""

    def __init__(self, server: HttpServer, listener: socket.socket) -> None:
        self._server = server
        self._listener = listener
        self._limit = max_connections()
        self._loop = asyncio.get_running_loop()
        self._beginning: set[asyncio.Task[object]] = set()
        self._warned = -_SECONDS_BETWEEN_WARNINGS
        self._waiting: asyncio.TimerHandle | None = None
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Take no more."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        connections = self._server.server_state.connections
        for number in range(_AT_ONCE):
            if len(connections) + len(self._beginning) >= self._limit:
                if not number:  # else it is not known yet whether there is another one
                    self._make_room()
                    self._pause(_SECONDS_TO_RETRY)
                return
            try:
                accepted, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # such as no descriptors: to try at once would go on for ever
                self._warn(str(error))
                self._make_room()
                self._pause(_SECONDS_WITHOUT_DESCRIPTORS)
                return
            beginning = self._loop.create_task(self._begin(accepted))
            self._beginning.add(beginning)
            beginning.add_done_callback(self._beginning.discard)

    async def _begin(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            await self._loop.connect_accepted_socket(self._server.protocol, accepted)
        except OSError:  # it has gone already
            accepted.close()

    def _make_room(self) -> None:
        """End the connections whose clients have been waited for longest."""
        waiting = [
            (since, number, connection)
            for number, connection in enumerate(self._server.server_state.connections)
            if isinstance(connection, BoundedProtocol)
            and (since := connection.waits_since()) is not None
        ]
        for _, _, connection in sorted(waiting)[: max(1, self._limit // _SHARE_MADE_ROOM_FOR)]:
            connection.make_room()
        if not waiting:
            self._warn(f"{self._limit} connections, all of them being answered")

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._waiting = self._loop.call_later(seconds, self._resume)

    def _resume(self) -> None:
        self._waiting = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def _warn(self, found: str) -> None:
        now = self._loop.time()
        if now - self._warned >= _SECONDS_BETWEEN_WARNINGS:
            self._warned = now
            log.warning("connections have to wait: %s", found)
