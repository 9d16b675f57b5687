import logging
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from recsys.data import files
from recsys.data.user_attributes import NUM_RANGES, UserAttributes
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.schema import Dataset

ITEMS = "item_id,title,description,genres,year\n1,One,,Drama|War,1999\n2,Two,Words.,,\n3,Three,,,\n"
HEADER = "user_id,item_id,timestamp\n"
NOON = 1_577_880_000  # 2020-01-01T12:00:00Z

Load = Callable[..., Dataset]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Write the given texts as CSV files and load them."""

    def from_text(
        interactions: str, items: str | None = ITEMS, users: str | None = None, **options: object
    ) -> Dataset:
        paths: dict[str, Path | None] = {"items": None, "users": None}
        for name, text in (("interactions", interactions), ("items", items), ("users", users)):
            if text is not None:
                paths[name] = tmp_path / f"{name}.csv"
                paths[name].write_text(text, encoding="utf-8")  # type: ignore[union-attr]
        return files.load(**paths, **options)  # type: ignore[arg-type]

    return from_text


def test_types_and_order(load: Load) -> None:
    data = load(f"user_id,item_id,timestamp,rating\n9,2,{NOON},4\n7,1,{NOON},\n")
    assert data.interactions["user_id"].tolist() == [9, 7]
    assert data.interactions.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "item_id": "int64",
        "timestamp": "int64",
        "rating": "float64",
    }
    assert data.interactions["rating"].isna().tolist() == [False, True]
    assert data.items["year"].dtype == pd.Int64Dtype()
    assert data.items["year"].isna().tolist() == [False, True, True]
    assert data.users is None


def test_without_a_table_of_items_they_are_those_of_the_interactions(load: Load) -> None:
    data = load(f"user_id,item_id,timestamp\n9,12,{NOON}\n7,12,{NOON}\n7,5,{NOON}\n", items=None)
    assert data.items["item_id"].tolist() == [12, 5]
    assert data.items["title"].tolist() == ["12", "5"]
    assert data.interactions["item_id"].tolist() == [12, 12, 5]


def test_ids_like_007_stay_text_in_all_files(load: Load) -> None:
    users = "user_id,city\n007,Oslo\n8,Rome\n"
    data = load(f"{HEADER}8,1,{NOON}\n", users=users)
    assert data.interactions["user_id"].tolist() == ["8"]
    assert data.users is not None
    assert data.users["user_id"].tolist() == ["007", "8"]
    assert data.interactions["item_id"].tolist() == [1]


def test_attributes_of_users_that_are_numbers_become_numbers(load: Load) -> None:
    users = "user_id,age,height,postcode,mixed\n7, 24 ,1.5,0123,7\n8,,2,4567,x\n9,61,,8901,\n"
    data = load(f"{HEADER}8,1,{NOON}\n", users=users)
    assert data.users is not None
    assert data.users["age"].tolist() == [24, pd.NA, 61]
    assert data.users["height"].tolist() == [1.5, 2.0, pd.NA]
    assert data.users["postcode"].tolist() == ["0123", "4567", "8901"]
    assert data.users["mixed"].tolist()[:2] == ["7", "x"]
    assert pd.isna(data.users["mixed"][2])


def test_numbers_of_users_become_ranges_whatever_file_they_come_from(load: Load) -> None:
    ages = range(10, 80)
    frame = pd.DataFrame({"user_id": [*ages], "age": [*ages]})
    rows = "".join(f"{user},1,{NOON}\n" for user in ages)
    data = load(HEADER + rows, users=frame.to_csv(index=False))
    vocabulary = Vocabulary([*ages])
    expected = UserAttributes.from_frame(frame, vocabulary)
    found = UserAttributes.from_frame(data.users, vocabulary)
    assert len(expected.names) == NUM_RANGES
    assert found.names == expected.names
    assert (found.matrix == expected.matrix).all()


@pytest.mark.parametrize("odd", ["a", "1.0", "+1", "1e3", "00", "-0", "9" * 19, "٣"])
def test_one_id_that_is_no_plain_integer_makes_all_text(load: Load, odd: str) -> None:
    data = load(f"{HEADER}{odd},1,{NOON}\n5,1,{NOON}\n")
    assert data.interactions["user_id"].tolist() == [odd, "5"]


def test_ids_that_pandas_made_floats_are_the_integers_that_they_were(load: Load) -> None:
    users = "user_id,city\n3,Oslo\n4,Rome\n"
    data = load(f"{HEADER}3.0,1.0,{NOON}\n4.0,2.0,{NOON}\n", users=users)
    assert data.interactions["user_id"].tolist() == [3, 4]
    assert data.interactions["item_id"].tolist() == [1, 2]
    data = load(f"{HEADER}3,x,{NOON}\n", "item_id,title\n1.0,One\nx,X\n", users=users)
    assert data.items["item_id"].tolist() == ["1.0", "x"]
    data = load(f"{HEADER}3.0,1,{NOON}\n", users="user_id,city\n3,Oslo\nanna,Rome\n")
    assert data.interactions["user_id"].tolist() == ["3"]


@pytest.mark.parametrize("lost", ["1e+16", "9007199254740994.0"])
def test_ids_that_have_lost_digits_as_floats_are_refused(load: Load, lost: str) -> None:
    with pytest.raises(InputError, match=rf"'user_id' of .*lost digits, first '{re.escape(lost)}'"):
        load(f"{HEADER}3.0,1,{NOON}\n{lost},1,{NOON}\n")


@pytest.mark.parametrize("marker", ["NULL", "null", r"\N", "nan", "NaN", "<NA>"])
def test_a_missing_id_is_nobodys(load: Load, marker: str) -> None:
    for known in ("anna", "7"):
        with pytest.raises(InputError, match=r"an id in each row; found 1 of 2 rows.*line 3"):
            load(f"{HEADER}{known},1,{NOON}\n{marker},1,{NOON}\n")


def test_what_may_be_a_name_is_missing_among_integers_alone(load: Load) -> None:
    assert load(f"{HEADER}anna,1,{NOON}\nNA,1,{NOON}\n").interactions["user_id"][1] == "NA"
    for known in ("7", "7.0"):
        with pytest.raises(InputError, match=r"an id in each row.*line 3: 'NA'"):
            load(f"{HEADER}{known},1,{NOON}\nNA,1,{NOON}\n")


def test_an_id_over_two_lines_is_refused(load: Load) -> None:
    with pytest.raises(InputError, match=r"each id of column 'user_id'.*line 4: 'b\\nc'"):
        load(f'{HEADER}a,1,{NOON}\n"b\nc",1,{NOON}\n')


def test_text_of_a_parquet_stays_text_in_all_files(load: Load, tmp_path: Path) -> None:
    """It has types, and an export of string ids must be read as string ids again."""
    path = tmp_path / "items.parquet"
    pd.DataFrame({"item_id": ["1", "2"], "title": ["One", "Two"]}).to_parquet(path)
    load(f"{HEADER}7,1,{NOON}\n")
    data = files.load(tmp_path / "interactions.csv", path)
    assert data.interactions["item_id"].tolist() == ["1"]
    assert data.interactions["user_id"].tolist() == [7]


def test_missing_values_as_programs_write_them(load: Load) -> None:
    data = load(
        f"user_id,item_id,timestamp,rating\n1,1,{NOON},NULL\n2,1,{NOON},4\n3,1,{NOON},NA\n",
        "item_id,title,description,year,release_date\n"
        "1,One,NULL,NULL,NaN\n2,Two,NA,1994.0,1994-05-01 00:00:00\n3,NULL,,0,0000-00-00\n",
        "user_id,age,region\n1,NULL,NA\n2,24,NULL\n3,nan,EU\n",
    )
    assert data.interactions["rating"].isna().tolist() == [True, False, True]
    assert data.items["description"].tolist() == ["", "NA", ""]
    assert data.items["title"].tolist() == ["One", "Two", "3"]
    assert data.items["year"].tolist() == [pd.NA, 1994, pd.NA]
    assert data.items["release_date"].tolist() == ["", "1994-05-01", ""]
    assert data.users is not None
    assert data.users["age"].tolist() == [pd.NA, 24, pd.NA]
    assert data.users["region"].isna().tolist() == [False, True, False]


def test_numbers_of_rows_are_no_attribute(load: Load) -> None:
    users = ",user_id,Unnamed: 0,age\n0,1,5,24\n"
    data = load(f"{HEADER}1,1,{NOON}\n", users=users)
    assert data.users is not None
    assert list(data.users) == ["user_id", "age"]


def test_decimal_commas_are_told(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="write decimals with a point"):
        load(f"user_id;item_id;timestamp;rating\n1;1;{NOON};3,5\n")
    load(f"{HEADER}1,1,{NOON}\n2,1,{NOON}\n", users="user_id;height\n1;1,5\n2;2\n")
    assert "numbers of column 'height' have decimal commas" in caplog.text
    caplog.clear()
    load(f"{HEADER}1,1,{NOON}\n2,1,{NOON}\n", users="user_id,zip\n1,0123\n2,1\n")
    assert caplog.text == ""


def test_the_separator_is_an_option(load: Load) -> None:
    data = load(
        f"user_id item_id timestamp\n1 1 {NOON}\n",
        "item_id title\n1 One\n",
        separator="space",
    )
    assert data.items["title"].tolist() == ["One"]
    with pytest.raises(InputError, match=r"set data\.columns.*data\.separator"):
        load(f"user_id item_id timestamp\n1 1 {NOON}\n")


@pytest.mark.parametrize("how", ["no column", "mapped to none"])
def test_without_times_there_is_no_column_of_them(
    load: Load, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    if how == "no column":
        data = load("user_id,item_id\n2,1\n1,1\n2,1\n")
    else:
        text = "user_id,item_id,timestamp\n2,1,\n1,1,\n2,1,\n"
        data = load(text, columns={"interactions": {"timestamp": None}})
    assert data.interactions.to_dict("list") == {"user_id": [1, 2], "item_id": [1, 1]}
    assert "no column of times" in caplog.text


def test_times_in_the_future_are_told_with_their_line(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    data = load(f"{HEADER}1,1,{NOON}\n\n2,1,4000000000\n3,1,4000000001\n")
    assert data.interactions["timestamp"].max() == 4000000001
    assert "2 of 3 interactions lie in the future, first line 4: 4000000000" in caplog.text


def test_users_of_whom_none_has_an_interaction_are_refused(load: Load) -> None:
    with pytest.raises(InputError, match=r"users table .*none of them.*'u1'.*'U1'.*data\.users"):
        load(f"{HEADER}u1,1,{NOON}\n", users="user_id,age\nU1,24\n")


def test_a_table_of_few_users_is_told(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    events = "".join(f"{user},1,{NOON}\n" for user in (1, 2, 3))
    load(HEADER + events, users="user_id,age\n1,24\n9,25\n")
    assert "has 1 of 3 users with interactions, first without a row [2, 3]" in caplog.text


def test_blanks_around_ids_do_not_count(load: Load) -> None:
    assert load(f"{HEADER}5, 1 ,{NOON}\n").interactions["item_id"].tolist() == [1]


@pytest.mark.parametrize(
    "written",
    [
        str(NOON),
        f"{NOON}.9",
        "2020-01-01T12:00:00",
        "2020-01-01 12:00:00.5",
        "2020-01-01T12:00:00Z",
        "2020-01-01T14:30:00+02:30",
        "2020-01-01 12:00:00 UTC",
        "2020-01-01 12:00:00 +0000",
        "2020/01/01 12:00",
    ],
)
def test_times_become_unix_seconds(load: Load, written: str) -> None:
    assert load(f"{HEADER}1,1,{written}\n").interactions["timestamp"].tolist() == [NOON]


def test_a_date_is_its_midnight_in_utc(load: Load) -> None:
    assert load(f"{HEADER}1,1,2020-01-01\n").interactions["timestamp"].tolist() == [NOON - 43_200]


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (f"3,,{NOON}", r"column 'item_id' .*an id in each row; found 1 of 3 rows .*line 3: ''"),
        (f" ,1,{NOON}", r"column 'user_id' .*line 3: ''"),
        ("3,1,", r"column 'timestamp' .*unix seconds or ISO 8601.*line 3: ''"),
        ("3,1,yesterday", r"column 'timestamp' .*line 3: 'yesterday'"),
        ("3,1,2020-01-01", r"column 'timestamp' .*line 3: '2020-01-01'"),
        ("3,1,20200101", r"column 'timestamp' .*line 3: '20200101'"),
        ("3,1,inf", r"column 'timestamp' .*line 3: 'inf'"),
        ("3,1,1e300", r"column 'timestamp' .*line 3: '1e300'"),
        ("3,1", r"3 fields in each row.*line 3 with 2"),
        (f"3,1,{NOON},9", r"3 fields in each row.*line 3 with 4"),
    ],
)
def test_a_bad_row_is_refused_with_column_rule_and_line(load: Load, bad: str, says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        load(f"{HEADER}1,1,{NOON}\n{bad}\n2,2,{NOON}\n")
    assert "interactions.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_all_broken_columns_are_named(load: Load) -> None:
    with pytest.raises(InputError, match=r"column 'user_id'.*also broken: timestamp"):
        load(f"{HEADER},1,soon\n1,1,{NOON}\n")


@pytest.mark.parametrize(
    ("unit", "digits"), [("milliseconds", 3), ("microseconds", 6), ("nanoseconds", 9)]
)
def test_smaller_units_are_refused_with_the_remedy(load: Load, unit: str, digits: int) -> None:
    with pytest.raises(InputError, match=f"{unit}: divide them by 1{'0' * digits}$"):
        load(f"{HEADER}1,1,{NOON}{'0' * digits}\n2,1,{NOON}{'1' * digits}\n")


def test_a_column_without_a_single_time_is_refused_with_the_remedy(load: Load) -> None:
    with pytest.raises(InputError, match=r"2 of 2 rows.*'soon'.*convert the column"):
        load(f"{HEADER}1,1,soon\n2,1,later\n")


def test_a_release_date_must_be_one(load: Load) -> None:
    events, header = f"{HEADER}1,1,{NOON}\n", "item_id,title,release_date\n1,One,1990-02-28\n"
    assert load(events, header + "2,Two,\n").items["release_date"].tolist() == ["1990-02-28", ""]
    with pytest.raises(InputError, match=r"'release_date' .*YYYY-MM-DD or empty.*'1990-02-30'"):
        load(events, header + "2,Two,1990-02-30\n")


def test_ratings_and_years_must_be_numbers(load: Load) -> None:
    with pytest.raises(InputError, match=r"column 'rating' .*a number or empty.*line 2: 'good'"):
        load(f"user_id,item_id,timestamp,rating\n1,1,{NOON},good\n")
    with pytest.raises(InputError, match=r"column 'year' .*a year or empty.*line 3: 'MCMXC'"):
        load(f"{HEADER}1,1,{NOON}\n", "item_id,title,year\n1,One,1990\n2,Two,MCMXC\n")


@pytest.mark.parametrize("column", ["user_id", "item_id"])
def test_a_missing_column_is_named_with_those_found(load: Load, column: str) -> None:
    text = f"{HEADER}1,1,{NOON}\n".replace(column, "other")
    with pytest.raises(
        InputError, match=rf"column '{column}'.*'other'.*data\.columns\.interactions\.{column}"
    ):
        load(text)


def test_items_without_any_title_or_description_have_no_text(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    data = load(f"{HEADER}1,1,{NOON}\n", "item_id,name\n1,One\n")
    assert not data.has_text
    assert data.items["title"].tolist() == ["1"]
    (line,) = caplog.messages
    assert "columns ['item_id', 'name']: texts are left out (text=none)" in line
    assert "data.columns.items.title=…" in line


@pytest.mark.parametrize(
    ("items", "has_text"),
    [
        ("item_id,title\n1,\n2,\n", False),
        ("item_id,title\n1,\n2,Two\n", True),
        ("item_id,description\n1,Words.\n2,\n", True),
        ("item_id,genres\n1,Drama\n2,War\n", False),
    ],
)
def test_one_title_or_description_makes_text(load: Load, items: str, has_text: bool) -> None:
    assert load(f"{HEADER}1,1,{NOON}\n", items).has_text == has_text


def test_a_title_column_that_is_named_must_be_there(load: Load) -> None:
    columns = {"items": {"title": "name"}}
    with pytest.raises(InputError, match=r"column 'name'.*data\.columns\.items\.title"):
        load(f"{HEADER}1,1,{NOON}\n", "item_id\n1\n", columns=columns)


def test_columns_map_to_the_names_of_the_files(load: Load) -> None:
    data = load(
        f"who,movieId,ts\n1,5,{NOON}\n",
        "movieId,name,tags\n5,Five,a; b\n",
        columns={
            "interactions": {"user_id": "who", "item_id": "movieId", "timestamp": "ts"},
            "items": {"item_id": "movieId", "title": "name", "genres": "tags"},
        },
        genre_separator=";",
    )
    assert data.interactions.columns.tolist() == ["user_id", "item_id", "timestamp"]
    assert data.items.iloc[0].to_dict() == {"item_id": 5, "title": "Five", "genres": "a|b"}


def test_one_column_may_serve_twice_and_users_keep_the_others(load: Load) -> None:
    data = load(
        f"{HEADER}1,5,{NOON}\n",
        "item_id,title\n5,Five\n",
        "uid,city\n1,Oslo\n",
        columns={"items": {"description": "title"}, "users": {"user_id": "uid"}},
    )
    assert data.items.iloc[0].to_dict() == {"item_id": 5, "title": "Five", "description": "Five"}
    assert data.users is not None
    assert data.users.iloc[0].to_dict() == {"user_id": 1, "city": "Oslo"}


def test_a_mapped_optional_column_must_be_there(load: Load) -> None:
    with pytest.raises(InputError, match="column 'stars' \\(rating\\)"):
        load(f"{HEADER}1,1,{NOON}\n", columns={"interactions": {"rating": "stars"}})


def test_a_repeated_pair_keeps_its_latest_row(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(1, 1, NOON + 9, 5), (2, 1, NOON, 1), (1, 1, NOON, 2), (2, 1, NOON, 3)]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    data = load("user_id,item_id,timestamp,rating\n" + text)
    assert data.interactions.to_numpy().tolist() == [[1, 1, NOON + 9, 5], [2, 1, NOON, 3]]
    assert "2 of 4 interactions repeat" in caplog.text


def test_interactions_with_unknown_items_are_dropped_and_counted(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    data = load(f"{HEADER}1,8,{NOON}\n1,1,{NOON}\n2,9,{NOON}\n2,2,{NOON}\n")
    assert data.interactions["item_id"].tolist() == [1, 2]
    assert "2 of 4 interactions (50.0%)" in caplog.text
    assert "[8, 9]" in caplog.text


def test_only_unknown_items_is_an_error_that_shows_both_sides(load: Load) -> None:
    with pytest.raises(InputError, match=r"\['tt1'\].*\['1', '2', '3'\]"):
        load(f"{HEADER}1,tt1,{NOON}\n")


def test_an_item_without_title_is_called_by_its_id(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    data = load(f"{HEADER}1,4,{NOON}\n", "item_id,title\n4, \n5,Five\n")
    assert data.items["title"].tolist() == ["4", "Five"]
    assert "1 of 2 items have no title" in caplog.text


def test_a_repeated_item_keeps_its_first_row(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    data = load(f"{HEADER}1,4,{NOON}\n", "item_id,title\n4,First\n4,Second\n")
    assert data.items["title"].tolist() == ["First"]
    assert "1 repeated items" in caplog.text


def test_a_clean_data_set_says_nothing(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        load(f"{HEADER}1,1,{NOON}\n", users="user_id\n1\n")
    assert caplog.text == ""


def test_parquet_and_csv_give_the_same(load: Load, tmp_path: Path) -> None:
    from_csv = load(f"{HEADER}1,1,{NOON}\n2,3,{NOON + 5}\n")
    events, items = tmp_path / "events.parquet", tmp_path / "items.parquet"
    times = pd.to_datetime(from_csv.interactions["timestamp"], unit="s")
    from_csv.interactions.assign(timestamp=times).to_parquet(events)
    from_csv.items.to_parquet(items)
    from_parquet = files.load(events, items)
    pd.testing.assert_frame_equal(from_parquet.interactions, from_csv.interactions)
    pd.testing.assert_frame_equal(from_parquet.items, from_csv.items)


def test_parquet_errors_name_the_row(load: Load, tmp_path: Path) -> None:
    load(f"{HEADER}1,1,{NOON}\n")
    events = tmp_path / "events.parquet"
    pd.DataFrame({"user_id": [1, None], "item_id": [1, 2], "timestamp": NOON}).to_parquet(events)
    with pytest.raises(InputError, match=r"column 'user_id' .*row 2: ''"):
        files.load(events, tmp_path / "items.csv")


def test_text_ids_of_parquet_stay_text_whatever_they_look_like(tmp_path: Path) -> None:
    events = pd.DataFrame({"user_id": ["1", "2"], "item_id": ["7", "8"], "timestamp": [10**9] * 2})
    items = pd.DataFrame({"item_id": ["7", "8"], "title": ["A", "B"]})
    paths = [tmp_path / "events.parquet", tmp_path / "items.parquet"]
    for frame, path in zip((events, items), paths, strict=True):
        frame.to_parquet(path)
    found = files.load(*paths)
    assert found.interactions["user_id"].tolist() == ["1", "2"]
    assert found.items["item_id"].tolist() == ["7", "8"]
    # One table with text says what they are.
    events.astype({"item_id": "int64"}).to_parquet(paths[0])
    found = files.load(*paths)
    assert found.interactions["item_id"].tolist() == ["7", "8"]
    assert found.items["item_id"].tolist() == ["7", "8"]
