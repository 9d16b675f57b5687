import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.growing import GrowingRows


def added(rows: GrowingRows, more: torch.Tensor) -> GrowingRows:
    return rows.with_rows(len(rows.rows) + torch.arange(len(more)), more)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), max_size=20), st.integers(0, 3))
def test_rows_are_those_put_together_and_older_ones_stay(sizes: list[int], first: int) -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(size, 2, generator=generator) for size in [first, *sizes]]
    versions = [GrowingRows(parts[0])]
    for part in parts[1:]:
        versions.append(added(versions[-1], part))
    for number, version in enumerate(versions, 1):
        torch.testing.assert_close(version.rows, torch.cat(parts[:number]), rtol=0, atol=0)


def test_two_extensions_of_one_version_do_not_meet() -> None:
    start = added(GrowingRows(torch.zeros(2, 1)), torch.ones(1, 1))
    left, right = added(start, torch.full((1, 1), 2.0)), added(start, torch.full((1, 1), 3.0))
    assert left.rows.flatten().tolist() == [0, 0, 1, 2]
    assert right.rows.flatten().tolist() == [0, 0, 1, 3]


def test_room_is_made_seldom() -> None:
    rows, places = GrowingRows(torch.zeros(1, 1)), set()
    for _ in range(1000):
        rows = added(rows, torch.ones(1, 1))
        places.add(rows.rows.data_ptr())
    assert len(places) < 20


def test_replaced_rows_are_a_copy() -> None:
    rows = GrowingRows(torch.zeros(3, 1))
    changed = rows.with_rows(torch.tensor([1]), torch.ones(1, 1))
    assert changed.rows.flatten().tolist() == [0, 1, 0]
    assert rows.rows.flatten().tolist() == [0, 0, 0]


def test_rows_are_replaced_and_added_at_once() -> None:
    rows = GrowingRows(torch.zeros(3, 1))
    positions, values = torch.tensor([3, 1, 4]), torch.tensor([[7.0], [8.0], [9.0]])
    assert rows.with_rows(positions, values).rows.flatten().tolist() == [0, 8, 0, 7, 9]
    assert rows.rows.flatten().tolist() == [0, 0, 0]
