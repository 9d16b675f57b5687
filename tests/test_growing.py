import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.growing import GrowingRows


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 3))
def test_rows_are_those_put_together_and_older_ones_stay(sizes: list[int], first: int) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, 2, generator=generator) for size in [first, *sizes]]
    versions = [GrowingRows(parts[0])]
    for part in parts[1:]:
        versions.append(versions[-1].extended(part))
    for number, version in enumerate(versions, 1):
        torch.testing.assert_close(version.rows, torch.cat(parts[:number]), rtol=0, atol=0)


def test_two_extensions_of_one_version_do_not_meet() -> None:
    start = GrowingRows(torch.zeros(2, 1)).extended(torch.ones(1, 1))
    left, right = start.extended(torch.full((1, 1), 2.0)), start.extended(torch.full((1, 1), 3.0))
    assert left.rows.flatten().tolist() == [0, 0, 1, 2]
    assert right.rows.flatten().tolist() == [0, 0, 1, 3]


def test_room_is_made_seldom() -> None:
    rows, places = GrowingRows(torch.zeros(1, 1)), set()
    for _ in range(1000):
        rows = rows.extended(torch.ones(1, 1))
        places.add(rows.rows.data_ptr())
    assert len(places) < 20


def test_replaced_rows_are_a_copy() -> None:
    rows = GrowingRows(torch.zeros(3, 1))
    changed = rows.replaced(torch.tensor([1]), torch.ones(1, 1))
    assert changed.rows.flatten().tolist() == [0, 1, 0]
    assert rows.rows.flatten().tolist() == [0, 0, 0]
