from datetime import date
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.data.tables import read_table
from recsys.errors import InputError


def written(tmp_path: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_values_stay_text(tmp_path: Path) -> None:
    frame = read_table(written(tmp_path, "a,b\n007,\n1.50,NA\n"), "x").frame
    assert frame.to_dict("list") == {"a": ["007", "1.50"], "b": ["", "NA"]}


def test_tsv_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfa\tb\r\n1\t2,5\r\n", "table.tsv")
    assert read_table(path, "x").frame.to_dict("list") == {"a": ["1"], "b": ["2,5"]}


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, 'a,b\n1,2\n\n3,"four\nfive"\n6,7\n'), "x")
    assert [table.place(row) for row in range(3)] == ["line 2", "line 5", "line 6"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n1,2,3\n4,5\n", r"2 fields .*1 other rows, first line 3 with 3: '1,2,3'"),
        ("a,b\n1,2\n\n1\n4,5\n", r"2 fields .*1 other rows, first line 4 with 1: '1'"),
        ("a,b\n1,2,3\n4,5,6\n", r"2 fields .*2 other rows, first line 2 with 3"),
        ("", "an empty file"),
        ("a,b\n", "rows in .*found none"),
        ("a,a\n1,2\n", r"repeated: \['a'\]"),
        (b"a,b\n1,\xff\xfe\n", "UTF-8"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_table(written(tmp_path, content), "data.items")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.csv.*no such file.*data\.items"):
        read_table(tmp_path / "absent.csv", "data.items")
    with pytest.raises(InputError, match="a folder"):
        read_table(tmp_path, "data.items")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.csv, \.tsv or \.parquet"):
        read_table(written(tmp_path, "{}", "table.json"), "data.items")


def test_parquet_reads_like_csv(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame(
        {
            "whole": [1, 2],
            "gaps": [12.0, None],
            "half": [0.5, 3.0],
            "text": ["007", None],
            "time": pd.to_datetime(["2020-01-01T01:00:00+01:00", None], utc=True),
            "list": [["a", "b"], []],
        }
    ).to_parquet(path)
    table = read_table(path, "x")
    assert table.frame.to_dict("list") == {
        "whole": ["1", "2"],
        "gaps": ["12", ""],
        "half": ["0.5", "3"],
        "text": ["007", ""],
        "time": ["2020-01-01T00:00:00.000000Z", ""],
        "list": ["a|b", ""],
    }
    assert table.place(1) == "row 2"


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary(4), pa.binary_view(), pa.string_view()]
)
@pytest.mark.parametrize("dictionary", [False, True])
def test_text_without_the_mark_of_text_is_text(
    tmp_path: Path, kind: pa.DataType, dictionary: bool
) -> None:
    """As Spark, Impala, Hive and old Arrow write it."""
    column = pa.chunked_array([pa.array([b"anna", None, "Zoé".encode()], kind)])
    if dictionary and kind not in (pa.binary_view(), pa.string_view()):
        column = column.dictionary_encode()
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"who": column}), path)
    table = read_table(path, "x")
    assert table.frame["who"].tolist() == ["anna", "", "Zoé"]
    assert table.typed == {"who"}


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(pa.table({"id": pa.array([b"\xff\xfe"]), "n": [1]}), path)
    with pytest.raises(InputError, match=r"column 'id' of .*binary that is no UTF-8"):
        read_table(path, "x")
    assert read_table(path, "x", wanted=["n"]).frame.to_dict("list") == {"n": ["1"]}


@pytest.mark.parametrize("named", [True, False])
def test_an_index_of_pandas_is_a_column_when_it_has_a_name(tmp_path: Path, named: bool) -> None:
    path = tmp_path / "table.parquet"
    index = pd.Index(["a", "b"], name="item_id" if named else None)
    pd.DataFrame({"title": ["A", "B"]}, index=index).to_parquet(path)
    expected = {"title": ["A", "B"]} | ({"item_id": ["a", "b"]} if named else {})
    assert read_table(path, "x").frame.to_dict("list") == expected


def test_levels_of_an_index_are_columns(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pd.DataFrame({"user_id": [1], "item_id": [2], "n": [3]}).groupby(
        ["user_id", "item_id"]
    ).sum().to_parquet(path)
    assert read_table(path, "x").frame.to_dict("list") == {
        "n": ["3"],
        "user_id": ["1"],
        "item_id": ["2"],
    }


def test_other_types_of_parquet(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    pq.write_table(
        pa.table(
            {
                " price ": pa.array([Decimal("3.50"), None]),
                "day": pa.array([date(2020, 1, 2), None]),
                "seen": pa.array([True, None]),
                "zone": pa.array([0, None], pa.timestamp("ns", "Europe/Berlin")),
                "none": pa.nulls(2),
                "bytes": pa.array([[b"a", b"b"], None], pa.list_(pa.binary())),
                "id": pa.array([UUID(int=7).bytes, None], pa.uuid()),
            }
        ),
        path,
    )
    assert read_table(path, "x").frame.to_dict("list") == {
        "price": ["3.50", ""],
        "day": ["2020-01-02", ""],
        "seen": ["True", ""],
        "zone": ["1970-01-01T00:00:00.000000Z", ""],
        "none": ["", ""],
        "bytes": ["a|b", ""],
        "id": ["00000000-0000-0000-0000-000000000007", ""],
    }


@pytest.mark.parametrize("name", ["table.parq", "TABLE.PQ", "export.csv"])
def test_a_parquet_is_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / name)
    assert read_table(tmp_path / name, "x").frame.to_dict("list") == {"a": ["1"]}


def test_a_broken_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="to be Parquet"):
        read_table(written(tmp_path, b"PAR1 nothing", "table.parquet"), "x")
