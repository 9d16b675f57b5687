"""One port, alone or shared by several processes."""

import socket
import sys

import pytest

from recsys.api.listener import listen, listen_beside, reserve
from recsys.errors import InputError


def test_a_reserved_port_is_listened_on_more_than_once() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        address = reserved.getsockname()
        with listen_beside(*address) as one, listen_beside(*address) as other:
            assert one.getsockname() == other.getsockname() == address


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not handed on")
def test_what_is_accepted_sends_small_parts_at_once() -> None:
    with reserve("127.0.0.1", 0) as reserved:
        shared = listen_beside(*reserved.getsockname())
        for listener in (listen("127.0.0.1", 0), shared):
            with listener, socket.create_connection(listener.getsockname()):
                accepted, _ = listener.accept()
                with accepted:
                    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_another_server_does_not_come_in_between() -> None:
    with reserve("127.0.0.1", 0) as reserved, listen_beside(*reserved.getsockname()):
        for take in (listen, reserve):
            with pytest.raises(InputError, match="found address already in use"):
                take(*reserved.getsockname())


def test_one_that_was_quicker_to_listen_is_told_of() -> None:
    with (
        reserve("127.0.0.1", 0) as reserved,
        listen(*reserved.getsockname()),
        pytest.raises(InputError, match="found address already in use"),
    ):
        listen_beside(*reserved.getsockname())
