"""A store knows whose data set it is, through every training on it, and refuses another."""

import pytest

from recsys.errors import InputError
from recsys.events.catalogue import NO_CATALOGUE, CatalogueSketch
from recsys.events.store import EventStore
from tests.events.stores import with_store


def of(start: int, end: int, name: str = "Tea") -> CatalogueSketch:
    return CatalogueSketch.of(range(start, end), [f"{name} {n}" for n in range(start, end)])


@pytest.mark.parametrize("size", [10, 200, 5_000])
def test_a_catalogue_that_has_changed_is_still_the_same(size: int) -> None:
    before = of(0, size)
    assert before.fits(before)
    assert before.fits(of(size // 2, 2 * size))  # half is gone, as much is new
    assert before.fits(of(0, 20 * size)) or size == 5_000
    assert CatalogueSketch.from_text(before.as_text()) == before


@pytest.mark.parametrize("size", [10, 200, 5_000])
def test_another_catalogue_is_not_even_where_ids_are_alike(size: int) -> None:
    assert not of(0, size).fits(of(0, size, "Bolt"))
    assert not of(0, size).fits(of(size, 2 * size))
    assert not of(0, size).fits(of(0, 10, "Bolt"))


def test_where_nothing_is_known_nothing_is_refused() -> None:
    assert NO_CATALOGUE.fits(of(0, 9))
    assert of(0, 9).fits(NO_CATALOGUE)
    assert CatalogueSketch.from_text("") == NO_CATALOGUE


def test_a_store_of_another_data_set_is_refused(store_url: str) -> None:
    async def nothing(store: EventStore) -> None:
        await store.head()

    def opened(catalogue: CatalogueSketch) -> None:
        with_store(store_url, nothing, catalogue=catalogue)

    opened(NO_CATALOGUE)
    opened(of(0, 100))
    for start in range(20, 400, 20):  # it changes from one training to the next
        opened(of(start, start + 100))
    with pytest.raises(InputError, match="expected an event store of the bundle's data set"):
        opened(of(0, 100, "Bolt"))
    with pytest.raises(InputError, match="of the bundle's data set"):
        with_store(store_url, lambda store: store.check_catalogue(of(0, 100, "Bolt")))
    with_store(store_url, lambda store: store.adopt(of(0, 100, "Bolt")))
    opened(of(0, 100, "Bolt"))
