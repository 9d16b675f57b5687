"""Both ways to find quoted fields agree with each other and with Python's csv module."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.quotes import _one_by_one, _regular, quoted_fields

FIELDS = st.lists(
    st.lists(st.text('ab" ,\n', max_size=6), min_size=2, max_size=3), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=200)
@given(rows=FIELDS, quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_fields_over_several_lines_are_found(rows: list[list[str]], quoting: int) -> None:
    stream = io.StringIO()
    csv.writer(stream, quoting=quoting, lineterminator="\n").writerows(rows)
    data = stream.getvalue().encode()
    regular, (others, fault) = _regular(data, 0, ","), _one_by_one(data, 0, ",")
    assert fault is None
    assert regular is not None
    assert regular.tolist() == others.tolist()
    found = [next(csv.reader([data[a:b].decode()]))[0] for a, b in regular.tolist()]
    assert found == [field for row in rows for field in row if "\n" in field]


@settings(deadline=None, max_examples=300)
@given(text=st.text('a",\n', max_size=20))
def test_what_is_regular_for_one_way_is_so_for_the_other(text: str) -> None:
    data = (text + "\n").encode()
    regular, (others, fault) = _regular(data, 0, ","), _one_by_one(data, 0, ",")
    if regular is not None:
        assert fault is None
        assert regular.tolist() == others.tolist()


@pytest.mark.parametrize(
    ("data", "line"),
    [(b'a,"b\nc\n', 1), (b'a\n"b" c\n', 2), (b'"a,b\n"c"\n', 1), (b'a, "b"\n', 1)],
)
def test_the_line_of_a_quote_that_belongs_to_no_field(data: bytes, line: int) -> None:
    _, fault = quoted_fields(data, 0, ",")
    assert fault is not None
    assert fault[0] == line


def test_what_lies_before_the_start_does_not_count() -> None:
    assert quoted_fields(b'"\n"a","b\n"\n', 2, ",")[0].tolist() == [[6, 10]]
