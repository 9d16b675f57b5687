"""Names that become files and folders."""

import pytest

from recsys.core.names import check_plain_name, is_plain_name, plain_name
from recsys.errors import InputError

PLAIN = ["a", "x[b]y", "ml-100k", "zoë", "two words", "a.b", "100%", "…" * 50, "-x", "a..b"]
NOT_PLAIN = [
    *("", ".", "..", ".hidden", "a/b", "../a", "/etc/passwd", "a\\b", "C:\\x", " a", "a "),
    *("a\nb", "a\0b", "a\x1b[31m", "\ud800", "\u202ea", "x" * 151, "…" * 51),
    *(None, 5, True, b"a", ["a"], {"a": 1}),
]


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names_stay_as_they_are(name: str) -> None:
    assert is_plain_name(name)
    assert plain_name(name) == check_plain_name(name, "it", "rename it") == name


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_others_are_refused_or_replaced(name: object) -> None:
    with pytest.raises(InputError, match="plain name") as refused:
        check_plain_name(name, "it", "rename it")
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400
    assert is_plain_name(plain_name(name))
    assert plain_name(name) == plain_name(name)
    assert plain_name("../a") != plain_name("../b")
