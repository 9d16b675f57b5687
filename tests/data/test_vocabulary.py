import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.vocabulary import Vocabulary

INTEGERS = st.lists(st.integers(-(2**62), 2**62), unique=True, min_size=1)
STRINGS = st.lists(st.text(min_size=1, max_size=5), unique=True, min_size=1)


@given(ids=INTEGERS | STRINGS)
def test_encode_and_decode_are_inverse(ids: list[int] | list[str]) -> None:
    vocabulary = Vocabulary(ids)
    indices = vocabulary.encode(ids)
    assert indices.tolist() == list(range(1, len(ids) + 1))
    assert vocabulary.decode(indices) == ids


@pytest.mark.parametrize("times", [1, 100], ids=["few", "many"])
def test_an_unknown_id_is_padding(times: int) -> None:
    vocabulary = Vocabulary([10, 20])
    assert vocabulary.encode([20, 30, 10, -1, 2**70] * times).tolist() == [2, 0, 1, 0, 0] * times
    words = Vocabulary(["a", "b"])
    assert words.encode(["b", "", "c", "漢"] * times).tolist() == [2, 0, 0, 0] * times
    assert 10 in vocabulary
    assert 30 not in vocabulary


@pytest.mark.parametrize("times", [1, 100], ids=["few", "many"])
def test_integers_and_strings_do_not_meet(times: int) -> None:
    assert not Vocabulary(["1", "2"]).encode([1, 2] * times).any()
    assert not Vocabulary([1, 2]).encode(["1", "2"] * times).any()
    with pytest.raises(ValueError, match="all integers or all strings"):
        Vocabulary([1, "2"])


def test_repeated_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"unique; repeated: \[5\]"):
        Vocabulary([5, 6, 5])


def test_of_sorts_the_distinct_ids_of_all_columns() -> None:
    assert Vocabulary.of([3, 1, 3], [2, 1]).ids.tolist() == [1, 2, 3]
    assert Vocabulary.of(["b", "a"], ["10", "9"]).ids.tolist() == ["10", "9", "a", "b"]


@pytest.mark.parametrize("index", [0, 3, -1])
def test_decode_refuses_padding_and_what_is_out_of_range(index: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.2"):
        Vocabulary([1, 2]).decode(np.array([index]))


def test_decoded_ids_are_plain_python() -> None:
    assert type(Vocabulary([7]).decode(np.array([1]))[0]) is int
    assert type(Vocabulary(["7"]).decode(np.array([1]))[0]) is str


def test_the_hash_tells_order_type_and_content_apart() -> None:
    vocabularies = [
        Vocabulary(ids)
        for ids in ([1, 2], [2, 1], [1], [12], ["1", "2"], ["12"], ["1", "2", "3"], ["12", "3"])
    ]
    assert len({vocabulary.content_hash() for vocabulary in vocabularies}) == len(vocabularies)
    assert Vocabulary([1, 2]).content_hash() == Vocabulary([1, 2]).content_hash()


@given(ids=INTEGERS | STRINGS, sizes=st.lists(st.integers(0, 4), max_size=4), branch=st.booleans())
def test_an_extended_vocabulary_is_one_made_whole(
    ids: list[int] | list[str], sizes: list[int], branch: bool
) -> None:
    parts = np.split(np.arange(len(ids)), np.minimum(np.cumsum([1, *sizes]), len(ids)))
    first = Vocabulary([ids[row] for row in parts[0]])
    versions = [first]
    for part in parts[1:]:
        if branch:
            versions[-1].extended([ids[row] for row in part[:1]])
        versions.append(versions[-1].extended([ids[row] for row in part]))
    for number, version in enumerate(versions, 1):
        own = [ids[row] for part in parts[:number] for row in part]
        whole = Vocabulary(own)
        assert version.ids.tolist() == own
        assert version.encode(ids * 100).tolist() == whole.encode(ids * 100).tolist()
        assert [one in version for one in ids] == [one in whole for one in ids]
        assert version.content_hash() == whole.content_hash()


@pytest.mark.parametrize("ids", [[1], [3, 3], ["x"], [True], [4, "y"]])
def test_ids_that_a_vocabulary_cannot_be_extended_by_are_refused(ids: list) -> None:
    with pytest.raises(ValueError, match="ids must be"):
        Vocabulary([1, 2]).extended(ids)
