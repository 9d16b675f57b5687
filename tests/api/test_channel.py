"""Messages of workers: what is in order, and whatever else may come."""

import json

import pytest

from recsys.api.channel import MAX_BYTES, encoded, packed, said, unpacked
from recsys.errors import InputError


@pytest.mark.parametrize(
    "message",
    [
        {"say": "alive"},
        {"say": "done"},
        {"say": "loaded", "version": "v", "device": "cpu"},
        {"say": "refused", "error": ["a", "b", "c"]},
        {"say": "reload", "folder": None},
        {"say": "reload", "folder": "/bundles/a"},
    ],
)
def test_what_is_in_order_is_understood(message: dict) -> None:
    assert said(encoded(message)) == message


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"Segmentation fault\n",
        b"\xff\xfe\n",
        b"null\n",
        b"[]\n",
        b'"alive"\n',
        b"{}\n",
        b'{"say": 1}\n',
        b'{"say": ["alive"]}\n',
        b'{"say": "hello"}\n',
        b'{"say": "loaded", "version": "v"}\n',
        b'{"say": "loaded", "version": 1, "device": "cpu"}\n',
        b'{"say": "refused"}\n',
        b'{"say": "refused", "error": "a"}\n',
        b'{"say": "refused", "error": ["a", "b"]}\n',
        b'{"say": "refused", "error": ["a", "b", 3]}\n',
        b'{"say": "reload"}\n',
        b'{"say": "reload", "folder": 7}\n',
        b"[" * 100_000 + b"\n",
        b"1" * 10_000 + b"\n",
    ],
)
def test_anything_else_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError):
        said(line)


def test_an_error_comes_over_cut_where_it_is_long() -> None:
    short = InputError("a bundle", "none", "train one")
    assert str(unpacked(packed(short))) == str(short)

    long = InputError("\U0001f4a5" * 100_000, "b" * 3_000_000, "c")
    line = encoded({"say": "refused", "error": packed(long)})

    assert len(line) < MAX_BYTES
    assert unpacked(json.loads(line)["error"]).found.startswith("bbb")
