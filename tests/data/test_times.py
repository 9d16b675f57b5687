"""Times as files have them, also those that stand for none."""

import pandas as pd
import pytest

from recsys.data.times import parse_timestamps


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("9999-12-31", 253_402_214_400),  # what databases write for "never"
        ("0001-01-01T00:00:00", -62_135_596_800),
        ("2020-01-01T00:00:00.75", 1_577_836_800),
        ("1969-12-31T23:59:59.5", -1),
        ("2020-01-01T02:00:00+02:00", 1_577_836_800),
        ("99999-01-01", None),
        ("now", None),
        ("today", None),
        (None, None),
    ],
)
def test_a_time_in_iso_8601_is_a_second_or_none(written: str | None, expected: int | None) -> None:
    found = parse_timestamps(pd.Series([written, "2020-01-01", "2020-01-02"], dtype="str"))
    assert (None if pd.isna(found[0]) else found[0]) == expected
    assert found[1] == 1_577_836_800
