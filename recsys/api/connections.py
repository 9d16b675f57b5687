"""HTTP connections that are bounded in size and in time, whatever their clients do.

uvicorn leaves both to a proxy in front of it: a header may go on for ever, and who is silent in the
middle of a request is waited for.
"""

import logging
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from recsys.api.middleware import MAX_BODY_BYTES

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 65_536
"""Of the request line and all headers. The longest that the API takes is about 40 kB."""
MAX_HEADERS = 200
MAX_WIRE_BYTES = 2 * MAX_BODY_BYTES + MAX_HEAD_BYTES
"""Of a body with what frames it, chunks' extensions and trailers for instance."""
MAX_PIPELINED = 16
"""Requests that a client has sent before it has read the answer to the first one."""
SECONDS_FOR_HEAD = 10.0
"""From the connection, or the answer before, to the last byte of a head."""
SECONDS_FOR_BODY = 30.0
"""From the last byte of a head to that of its body."""
SECONDS_TO_READ = 30.0
"""From when a client stops to read its answer."""
SECONDS_KEPT = 5
"""That a connection is kept after an answer while its client says nothing."""

_SLICE = 16_384
_SECONDS_TO_LINGER = 1.0
_MAX_LINGER_BYTES = 262_144
_TOO_LARGE, _HEAD_TOO_LARGE, _TIMED_OUT = 413, 431, 408


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading: Literal["head", "body"] = "head"
        self._since = self.loop.time()
        self._num_bytes = 0  # of the part that is being read
        self._unread_since: float | None = None
        self._is_refused = False

    @property
    def _is_busy(self) -> bool:
        """Whether a request has been read that is not answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def waits_since(self) -> float | None:
        """Since when it is the client's turn, as of the loop's clock; None while it is not."""
        if self.transport.is_closing() or self._unread_since is not None:
            return self._unread_since or self._since
        return None if self._is_busy and self._reading == "head" else self._since

    def data_received(self, data: bytes) -> None:
        """Some of a request, or of several."""
        for start in range(0, len(data), _SLICE):
            part = data if len(data) <= _SLICE else data[start : start + _SLICE]
            if self._is_refused:
                self._discard(part)
            elif not self.transport.is_closing():
                self._num_bytes += len(part)
                super().data_received(part)
                self._check_size()

    def _check_size(self) -> None:
        if self._reading == "head" and self._num_bytes > MAX_HEAD_BYTES + _SLICE:
            self._refuse(_HEAD_TOO_LARGE)
        elif self._reading == "body" and self._num_bytes > MAX_WIRE_BYTES:
            self._refuse(_TOO_LARGE)

    def _discard(self, data: bytes) -> None:
        """What comes after a refusal; to close at once would keep the client from reading it."""
        self._num_bytes += len(data)
        if self._num_bytes > _MAX_LINGER_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """A head is there: begin to answer."""
        if self._is_refused:
            return
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse(_HEAD_TOO_LARGE)
        elif len(self.pipeline) >= MAX_PIPELINED:
            self._refuse(_TOO_LARGE)
        else:
            super().on_headers_complete()
            self._now_reads("body")

    def on_body(self, body: bytes) -> None:
        """A part of a body."""
        if not self._is_refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is complete."""
        if not self._is_refused:
            super().on_message_complete()
            self._now_reads("head")

    def on_response_complete(self) -> None:
        """An answer has been handed to the transport."""
        self._since = self.loop.time()
        super().on_response_complete()

    def _now_reads(self, what: Literal["head", "body"]) -> None:
        self._reading, self._num_bytes, self._since = what, 0, self.loop.time()

    def check(self, now: float) -> None:
        """Close where the client has had its time; to be called about every second."""
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            if self._unread_since is None:
                self._unread_since = now
            elif now - self._unread_since > SECONDS_TO_READ:
                self.transport.abort()
            return
        self._unread_since = None
        since = self.waits_since()
        limit = SECONDS_FOR_HEAD if self._reading == "head" else SECONDS_FOR_BODY
        if since is not None and now - since > limit:
            self._give_up()

    def _give_up(self) -> None:
        """The client has been waited for long enough."""
        if self._num_bytes or self._reading == "body":
            self._refuse(_TIMED_OUT)
        else:
            self.transport.close()

    def make_room(self) -> None:
        """End while it is the client's turn, since others want to come in."""
        self._is_refused = True
        self.transport.abort()

    def _refuse(self, status: int) -> None:
        """Read no more, and say why where the client can take it for the answer to its request."""
        log.info("connection refused", extra={"fields": {"status": status, "client": self.client}})
        self._is_refused, self._num_bytes = True, 0
        is_own = self._reading == "body"
        if self._is_busy and not is_own:
            self.cycle.keep_alive = False  # what has been asked for before is answered first
            return
        if self._is_busy and (self.pipeline or self.cycle.response_started):
            self.transport.abort()
            return
        if self._is_busy:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        line = STATUS_LINE[status]
        self.transport.write(line + b"content-length: 0\r\nconnection: close\r\n\r\n")
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_SECONDS_TO_LINGER, self.transport.abort)
