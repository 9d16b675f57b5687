import logging
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from recsys import batch
from recsys.batch import select_users, write_recommendations
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.recommender import Recommender
from recsys.request import Request

INTEGERS = Vocabulary([30, 10, 20])
STRINGS = Vocabulary(["a", "007"])


def test_file_holds_exactly_what_the_recommender_answers(untrained_recommender, tmp_path: Path):
    output = tmp_path / "new" / "recs.parquet"
    users = untrained_recommender.users.ids.tolist()
    write_recommendations(untrained_recommender, users, output, top_k=7)
    frame = pd.read_parquet(output)
    assert frame.dtypes.astype(str).to_dict() == {
        "user_id": "int64",
        "rank": "int32",
        "item_id": "int64",
        "score": "float32",
        "source": "str",
    }
    requests = [Request(top_k=7, user_id=user) for user in users]
    answers = untrained_recommender.recommend(requests)
    assert frame["user_id"].tolist() == np.repeat(users, 7).tolist()
    assert frame["rank"].tolist() == list(range(1, 8)) * len(users)
    assert frame["item_id"].tolist() == [item for a in answers for item in a.item_ids]
    np.testing.assert_array_equal(frame["score"], np.concatenate([a.scores for a in answers]))
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.parametrize("batch_size", [1, 64, 100])
def test_lists_do_not_depend_on_the_batch_size(
    untrained_recommender: Recommender, batch_size: int, tmp_path: Path
):
    users = untrained_recommender.users.ids.tolist()
    sizes = {"a.parquet": batch_size, "b.parquet": 1000}
    for name, size in sizes.items():
        write_recommendations(
            untrained_recommender, users, tmp_path / name, top_k=9, batch_size=size
        )
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name) for name in sizes))


def test_training_items_are_left_out_and_short_lists_are_not_padded(
    untrained_recommender: Recommender, tmp_path: Path
):
    write_recommendations(untrained_recommender, [101, 102], tmp_path / "recs.parquet", top_k=500)
    frame = pd.read_parquet(tmp_path / "recs.parquet")
    # 30 items, of which each user has had 4.
    ranks = frame.groupby("user_id")["rank"].agg(list)
    assert ranks.to_dict() == {101: list(range(1, 27)), 102: list(range(1, 27))}
    had = untrained_recommender.items.decode(untrained_recommender.histories.log.item_idx[:4])
    assert not frame.loc[frame["user_id"] == 101, "item_id"].isin(had).any()


def test_unknown_users_get_popular_items_and_are_counted(
    untrained_recommender: Recommender, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.INFO, "recsys.batch"):
        write_recommendations(
            untrained_recommender, [101, 5, 6], tmp_path / "recs.parquet", top_k=3
        )
    assert "9 rows for 3 users" in caplog.text
    assert "2 users of whom nothing is known got the popular items" in caplog.text
    frame = pd.read_parquet(tmp_path / "recs.parquet")
    lists = frame.groupby("user_id")["item_id"].agg(list)
    assert lists[5] == lists[6]


def test_rerank_false_writes_stage_1(untrained_recommender: Recommender, tmp_path: Path):
    write_recommendations(
        untrained_recommender, [101], tmp_path / "r.parquet", top_k=5, rerank=False
    )
    answer = untrained_recommender.recommend([Request(top_k=5, user_id=101)], rerank=False)[0]
    assert pd.read_parquet(tmp_path / "r.parquet")["item_id"].tolist() == answer.item_ids
    assert answer.source == "retrieved"


def test_string_ids_stay_strings(string_id_recommender: Recommender, tmp_path: Path):
    write_recommendations(string_id_recommender, ["u2", "u1"], tmp_path / "recs.parquet", top_k=2)
    frame = pd.read_parquet(tmp_path / "recs.parquet")
    assert frame["user_id"].tolist() == ["u2", "u2", "u1", "u1"]
    assert frame["item_id"].str.startswith("i").all()


def test_rows_are_written_in_groups(
    untrained_recommender: Recommender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(batch, "_ROWS_PER_GROUP", 100)
    users = untrained_recommender.users.ids.tolist()
    write_recommendations(
        untrained_recommender, users, tmp_path / "r.parquet", top_k=2, batch_size=64
    )
    metadata = pq.read_metadata(tmp_path / "r.parquet")
    sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    assert sizes == [128, 52]


def test_no_users_make_an_empty_file(untrained_recommender: Recommender, tmp_path: Path):
    write_recommendations(untrained_recommender, [], tmp_path / "recs.parquet", top_k=2)
    assert pd.read_parquet(tmp_path / "recs.parquet").shape == (0, 5)


def test_an_error_leaves_the_older_file(untrained_recommender: Recommender, tmp_path: Path):
    output = tmp_path / "recs.parquet"
    output.write_text("old")
    with pytest.raises(RuntimeError, match="no list"):
        write_recommendations(Broken(untrained_recommender), [101] * 100, output, top_k=2)
    assert output.read_text() == "old"
    assert list(tmp_path.iterdir()) == [output]


class Broken:
    """A recommender that fails."""

    def __init__(self, recommender: Recommender) -> None:
        self.users, self.items = recommender.users, recommender.items

    def recommend(self, requests, *, rerank):
        raise RuntimeError("no list")


@pytest.mark.parametrize("bad", [{"top_k": 0}, {"top_k": 5, "batch_size": 0}])
def test_sizes_below_one_are_refused(untrained_recommender, bad, tmp_path: Path):
    with pytest.raises(InputError, match="at least 1; found 0"):
        write_recommendations(untrained_recommender, [101], tmp_path / "recs.parquet", **bad)


def test_a_folder_is_no_output(untrained_recommender: Recommender, tmp_path: Path):
    with pytest.raises(InputError, match="found the folder"):
        write_recommendations(untrained_recommender, [101], tmp_path, top_k=1)


@pytest.mark.parametrize(
    ("users", "vocabulary", "ids"),
    [
        ("all", INTEGERS, [30, 10, 20]),
        ("all", STRINGS, ["a", "007"]),
        ("10, 99,10", INTEGERS, [10, 99]),
        ("007", STRINGS, ["007"]),
        ("-4", INTEGERS, [-4]),
    ],
)
def test_users_from_the_command_line(users: str, vocabulary: Vocabulary, ids: list):
    assert select_users(users, vocabulary) == ids


@pytest.mark.parametrize("suffix", [".csv", ".txt", ".parquet"])
def test_users_from_a_file(suffix: str, tmp_path: Path):
    path = tmp_path / f"users{suffix}"
    for vocabulary, ids in ((INTEGERS, [20, 7, 20]), (STRINGS, ["007", "NA", "007"])):
        frame = pd.DataFrame({"age": 1, "user_id": ids})
        if suffix == ".csv":
            frame.to_csv(path, index=False)
        elif suffix == ".parquet":
            frame.to_parquet(path)
        else:
            path.write_text("".join(f"{user}\n" for user in ids))
        assert select_users(str(path), vocabulary) == ids[:2]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id\n1\n", r"expected a column user_id in .*a\.csv; found id"),
        ("a.csv", "user_id\n1\nx\n1.5\n", "expected integer user ids in .*; found 'x', '1.5'"),
        ("a.csv", "user_id,b\n1,2\n,3\n", "found ''"),
        ("a.csv", "", "an empty file"),
        ("a.txt", "", "found none"),
        ("a.parquet", "no parquet", "to be Parquet"),
        (None, None, "found no such file"),
    ],
)
def test_a_bad_file_of_users_is_refused(name, content, message, tmp_path: Path):
    if name is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        select_users(str(tmp_path / (name or "b.csv")), INTEGERS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("users.tsv", "age\tuser_id\n1\tu1\n2\tu2\n"),
        ("USERS.CSV", "user_id\nu1\nu2\n"),
        ("users.csv", "user_id;age\n u1;1\nu2 ;2\n"),
        ("users.lst", "u1\nu2\n"),
        ("users.lst", "user_id\tage\nu1\t7\nu2\t8\n"),
        ("users.txt", "\ufeffu1\r\n\r\n u2 \r\n"),
        ("users.txt", "user_id\nu1\nu2\n"),
        ("users.txt", "user_id,age\nu1,7\nu2,8\n"),
        ("users", "user_id\nu1\nu2\n"),
    ],
)
def test_users_of_files_as_people_have_them(name: str, content: str, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes(content.encode())
    if not path.suffix:
        with pytest.raises(InputError, match=r"users to end in \.csv"):
            select_users(str(path), STRINGS)
        return
    assert select_users(str(path), STRINGS) == ["u1", "u2"]


def test_users_that_pandas_made_floats_are_integers(tmp_path: Path):
    path = tmp_path / "users.csv"
    path.write_text("user_id\n10.0\n20.0\n")
    assert select_users(str(path), INTEGERS) == [10, 20]
    path.write_text("user_id\n10.0\nNULL\n")
    with pytest.raises(InputError, match=r"integer user ids in .*; found '10\.0', ''"):
        select_users(str(path), INTEGERS)


@pytest.mark.parametrize(
    "users",
    [
        "nowhere/users.parq",
        "users.tsv",
        "users.parquet",
        "USERS.CSV.GZ",
        "users.json",
        "users.xlsx",
        "a/b",
    ],
)
def test_what_looks_like_a_file_is_no_user(users: str):
    with pytest.raises(InputError, match=r"expected a file at .*; found no such file"):
        select_users(users, STRINGS)


def test_a_folder_or_another_kind_of_file_is_no_user(tmp_path: Path):
    with pytest.raises(InputError, match="found a folder"):
        select_users(str(tmp_path), STRINGS)
    path = tmp_path / "users.json"
    path.write_text('["u1"]')
    with pytest.raises(InputError, match=r"users to end in \.csv, \.tsv or \.parquet"):
        select_users(str(path), STRINGS)


def test_a_users_own_id_may_look_like_a_file():
    vocabulary = Vocabulary(["a/b", "c.csv"])
    assert select_users("a/b", vocabulary) == ["a/b"]
    assert select_users("c.csv, a/b", vocabulary) == ["c.csv", "a/b"]


def test_many_users_on_the_command_line_are_no_name_of_a_file():
    assert select_users(",".join(map(str, range(2000))), INTEGERS) == list(range(2000))


@pytest.mark.parametrize("users", ["1_0", "+10", "٣", "010", "9" * 5000, "9" * 19])
def test_integers_are_written_as_integers(users: str):
    with pytest.raises(InputError, match="integer user ids in users="):
        select_users(users, INTEGERS)


def test_wrong_ids_on_the_command_line_are_refused():
    with pytest.raises(InputError, match="expected integer user ids in users=1,x; found 'x'; give"):
        select_users("1,x", INTEGERS)
