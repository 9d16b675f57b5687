import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from tiny_movielens import WriteTiny, tiny_rows, ua_lines

from recsys.data import movielens
from recsys.data.splits import make_split
from recsys.errors import InputError
from recsys.schema import Dataset


def load_tiny(folder: Path, **options: object) -> Dataset:
    return movielens.load(folder, download=False, counts=None, **options)  # type: ignore[arg-type]


def test_interactions_stay_in_file_order(write_tiny: WriteTiny) -> None:
    data = load_tiny(write_tiny())
    columns = ["user_id", "item_id", "rating", "timestamp"]
    written = [
        "\t".join(map(str, row)) for row in data.interactions[columns].astype(int).to_numpy()
    ]
    assert written == tiny_rows()
    assert data.interactions.index.equals(pd.RangeIndex(36))


def test_items_have_clean_titles_years_and_genres(write_tiny: WriteTiny) -> None:
    items = load_tiny(write_tiny()).items
    assert items["title"].head(4).tolist() == ["Toy Story", "Das Boot", "Les Misérables", "unknown"]
    assert items["year"].head(3).tolist() == [1995, 1981, 1995]
    assert pd.isna(items["year"][3])
    assert items["genres"].head(4).tolist() == ["Children's", "Action|Drama", "Drama", ""]


def test_users_have_age_gender_and_occupation(write_tiny: WriteTiny) -> None:
    users = load_tiny(write_tiny()).users
    assert users is not None
    assert users.iloc[1].to_dict() == {
        "user_id": 2,
        "age": 22,
        "gender": "F",
        "occupation": "writer",
    }


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Empire Strikes Back, The (1980)", "The Empire Strikes Back", 1980),
        ("Enfer, L' (1994)", "L'Enfer", 1994),
        (
            "Horseman on the Roof, The (Hussard sur le toit, Le) (1995)",
            "The Horseman on the Roof (Le Hussard sur le toit)",
            1995,
        ),
        (
            "Shanghai Triad (Yao a yao yao dao waipo qiao) (1995)",
            "Shanghai Triad (Yao a yao yao dao waipo qiao)",
            1995,
        ),
        ("Land Before Time III (1995) (V)", "Land Before Time III", 1995),
        ("Two Friends (1986) ", "Two Friends", 1986),
        ("Sex, Lies, and Videotape (1989)", "Sex, Lies, and Videotape", 1989),
        ("Paris, Texas (1984)", "Paris, Texas", 1984),
        ("unknown", "unknown", None),
        ("1984", "1984", None),
    ],
)
def test_title_parsing(raw: str, title: str, year: int | None) -> None:
    assert movielens.parse_title(raw) == (title, year)


def test_a_zip_equals_its_folder(write_tiny: WriteTiny, tmp_path: Path) -> None:
    folder = write_tiny()
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in folder.iterdir():
            out.write(path, f"ml-100k/{path.name}")
    from_zip = load_tiny(tmp_path / "absent", archive=archive)
    from_folder = load_tiny(folder)
    pd.testing.assert_frame_equal(from_zip.interactions, from_folder.interactions)
    pd.testing.assert_frame_equal(from_zip.items, from_folder.items)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("line", "bad", "says"),
    [
        (3, "1\t2\t3", "four integers"),
        (5, "1\t2\tx\t880000000", "four integers"),
        (7, "1\t2\t6\t880000000", "rating in 1..5"),
        (9, "4\t2\t3\t880000000", "user_id in 1..3"),
        (11, "1\t21\t3\t880000000", "item_id in 1..20"),
        (13, "", "four integers"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(
    write_tiny: WriteTiny, line: int, bad: str, says: str
) -> None:
    rows = tiny_rows()
    rows[line - 1] = bad
    with pytest.raises(InputError, match=rf"{says}.*u\.data line {line}: "):
        load_tiny(write_tiny(u_data=rows))


def test_a_truncated_file_is_refused(write_tiny: WriteTiny) -> None:
    with pytest.raises(InputError, match=r"36 ratings in .*u\.data; found 30.*truncated.*line 30"):
        load_tiny(write_tiny(u_data=tiny_rows()[:30]))


def test_additional_rows_are_refused(write_tiny: WriteTiny) -> None:
    rows = tiny_rows()
    with pytest.raises(InputError, match="37: the file is too long"):
        load_tiny(write_tiny(u_data=[*rows, "1\t20\t3\t880000000"]))


def test_a_repeated_pair_is_refused(write_tiny: WriteTiny) -> None:
    rows = tiny_rows()
    rows[20] = rows[4]
    with pytest.raises(InputError, match=r"one rating per user and item.*line 21"):
        load_tiny(write_tiny(u_data=rows))


def test_official_counts_are_the_default(write_tiny: WriteTiny) -> None:
    with pytest.raises(InputError, match=r"943 users in .*u\.info; found 3"):
        movielens.load(write_tiny(), download=False)


def test_a_leaked_training_file_is_refused(write_tiny: WriteTiny) -> None:
    rows = sorted(tiny_rows())
    first = next(n for n, row in enumerate(rows, 1) if row in ua_lines(tiny_rows())[1])
    with pytest.raises(
        InputError, match=rf"ua\.base without test rows; found 30 test rows of 36, .*line {first}: "
    ):
        load_tiny(write_tiny(ua_base=rows))


def test_a_single_leaked_row_is_refused(write_tiny: WriteTiny) -> None:
    base, test = ua_lines(tiny_rows())
    with pytest.raises(InputError, match=r"found 1 test rows of 7, .*line 7: "):
        load_tiny(write_tiny(ua_base=[*base, test[0]]))


def test_official_files_that_differ_otherwise_are_refused(write_tiny: WriteTiny) -> None:
    base, test = ua_lines(tiny_rows())
    for replaced in (
        {"ua_base": base[:-1]},
        {"ua_base": [*base[:-1], base[0]]},
        {"ua_base": [*base[:-1], "1\t1\t1\t1"]},
        {"ua_test": test[:-1]},
        {"ua_test": [*test, base[0]]},
    ):
        folder = write_tiny(**replaced)
        with pytest.raises(InputError, match=r"ua\.(base|test)"):
            load_tiny(folder)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_optional_files_may_be_absent(write_tiny: WriteTiny) -> None:
    data = movielens.load(
        write_tiny(u_info=None, ua_base=None, ua_test=None),
        download=False,
        counts={"users": 3, "items": 20, "ratings": 36},
    )
    assert len(data.interactions) == 36


def test_missing_genres_field_is_refused_with_its_line(write_tiny: WriteTiny) -> None:
    items = [f"{n}|Film (1990)|||x|0|1|0|0" for n in range(1, 21)]
    items[6] = "7|Film (1990)|||x|0|1"
    with pytest.raises(InputError, match=r"9 fields.*u\.item line 7"):
        load_tiny(write_tiny(u_item=items))


def test_release_dates_are_read_and_may_be_missing(write_tiny: WriteTiny) -> None:
    items = [f"{n}|Film (1990)|14-Mar-1997||x|0|1|0|0" for n in range(1, 21)]
    items[6] = "7|Film (1990)|||x|0|1|0|0"
    dates = load_tiny(write_tiny(u_item=items)).items["release_date"].tolist()
    assert dates == ["1997-03-14"] * 6 + [""] + ["1997-03-14"] * 13


def test_a_release_date_that_is_none_is_refused_with_its_line(write_tiny: WriteTiny) -> None:
    items = [f"{n}|Film (1990)|14-Mar-1997||x|0|1|0|0" for n in range(1, 21)]
    items[6] = "7|Film (1990)|31-Feb-1997||x|0|1|0|0"
    with pytest.raises(InputError, match=r"a release date such as .*u\.item line 7"):
        load_tiny(write_tiny(u_item=items))


needs_archive = pytest.mark.skipif(
    not os.environ.get("MOVIELENS_ARCHIVE"), reason="MOVIELENS_ARCHIVE is not set"
)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    absent = tmp_path_factory.mktemp("data") / "ml-100k"
    return movielens.load(absent, os.environ["MOVIELENS_ARCHIVE"], download=False)


@needs_archive
def test_the_official_set_loads_whole(official: Dataset) -> None:
    assert len(official.interactions) == 100_000
    assert len(official.items) == 1_682
    assert official.users is not None
    assert len(official.users) == 943
    assert official.items["year"].isna().sum() == 1
    assert official.items.loc[171, "title"] == "The Empire Strikes Back"


@needs_archive
def test_ua_is_the_official_split(official: Dataset) -> None:
    split = make_split(official.interactions, "ua", num_test=10)
    assert (len(split.train), len(split.test)) == (90_570, 9_430)
    source = Path(os.environ["MOVIELENS_ARCHIVE"])
    if source.is_file():
        with zipfile.ZipFile(source) as archive, archive.open("ml-100k/ua.test") as stream:
            columns = ["user_id", "item_id", "rating", "timestamp"]
            expected = pd.read_csv(stream, sep="\t", names=columns)
        found = split.test[columns].sort_values(["user_id", "item_id"], ignore_index=True)
        expected = expected.sort_values(["user_id", "item_id"], ignore_index=True)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
