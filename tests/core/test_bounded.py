"""Reading from outside within bounds."""

import os
from pathlib import Path

import pytest

from recsys.core.bounded import parse_json, read_bounded
from recsys.core.settings import FLAG, checked, one_of, or_null, real, shown, text, texts, whole
from recsys.errors import InputError


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5, "remove it") == b"12345"
    with pytest.raises(InputError, match="at most 4 bytes"):
        read_bounded(file, 4, "remove it")


def test_what_never_ends_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for endless in (pipe, Path("/dev/zero"), tmp_path):
        with pytest.raises(InputError, match="something else"):
            read_bounded(endless, 10, "remove it")
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "none", 10, "remove it")


@pytest.mark.parametrize(
    "content",
    [
        *("NaN", "[Infinity]", "[" * 100_000, "[" * 41 + "]" * 41, '{"a":' * 41 + "1" + "}" * 41),
        *("", "{", '"\\q"', "9" * 5_000, "[1,]"),
    ],
)
def test_what_is_no_plain_json_is_refused(content: str) -> None:
    with pytest.raises(ValueError):
        parse_json(content)


def test_plain_json_is_read() -> None:
    assert parse_json('{"a": [1, null, "x", {"b": 2.5}]}') == {"a": [1, None, "x", {"b": 2.5}]}
    assert parse_json("[" * 39 + "]" * 39)


@pytest.mark.parametrize(
    ("setting", "fitting", "others"),
    [
        (whole(1, 5), [1, 5], [0, 6, True, 2.0, "3", None, 10**400]),
        (real(0, 1), [0, 1, 0.5], [-0.1, 2, True, float("nan"), float("inf"), "0", 10**400]),
        (FLAG, [True, False], [0, 1, None, "true"]),
        (text(3), ["", "abc"], ["abcd", None, 3, b"a"]),
        (texts(2, 3), [[], ["abc", ""]], [["abcd"], ["a"] * 3, "abc", [1], None]),
        (one_of("a", "b"), ["a"], ["c", None, 1, ["a"], {}]),
        (or_null(whole(1, 5)), [None, 3], [0, "3"]),
    ],
)
def test_a_setting_has_a_type_and_bounds(setting, fitting, others) -> None:
    for value in fitting:
        assert checked({"it": value}, {"it": setting}, "here", "mend it") == {"it": value}
    for value in others:
        with pytest.raises(InputError, match=r"here\.it to be"):
            checked({"it": value}, {"it": setting}, "here", "mend it")


@pytest.mark.parametrize(
    "found", [None, 5, [], "x", {"other": 1}, {5: 1}, {"_target_": "os.system"}]
)
def test_other_settings_are_refused(found: object) -> None:
    with pytest.raises(InputError, match="here"):
        checked(found, {"it": FLAG}, "here", "mend it")


@pytest.mark.parametrize(
    "value",
    ["x" * 10**7, [1] * 10**7, pytest.param(10**5000, id="huge"), "\x1b[31m\n", {"a": "b" * 99}],
)
def test_a_value_is_shown_on_a_short_line(value: object) -> None:
    assert len(shown(value)) < 100
    assert shown(value).isprintable()
