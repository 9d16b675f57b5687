import socket
from pathlib import Path

import pytest

from recsys.api.server import listen, serve
from recsys.errors import InputError

DEFAULTS = {"host": "127.0.0.1", "port": 0, "device": "cpu", "log_level": "info"}


def test_listens_where_it_is_told():
    with listen("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        socket.create_connection((host, port), timeout=5).close()


def test_a_taken_port_is_named(untrained_bundle: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"port={port}; found address already in use"):
            serve(untrained_bundle, **{**DEFAULTS, "port": port})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 70000}, r"expected a port in 0\.\.65535; found 70000; set port=8000"),
        ({"port": -1}, "found -1"),
        ({"host": "192.0.2.1"}, r"host=192\.0\.2\.1 port=0; found cannot assign"),
        ({"device": "gpu"}, "device to be one of auto, cpu, cuda; found 'gpu'"),
        ({"log_level": "loud"}, "log_level to be one of critical, .*; found 'loud'"),
    ],
)
def test_a_wrong_setting_is_refused(untrained_bundle: Path, settings: dict, message: str):
    with pytest.raises(InputError, match=message):
        serve(untrained_bundle, **{**DEFAULTS, **settings})


def test_the_bundle_is_loaded_before_the_port_is_taken(tmp_path: Path):
    with pytest.raises(InputError, match=r"found no such folder; run: python train\.py stage=all"):
        serve(tmp_path / "none", **{**DEFAULTS, "port": 70000})
