from hypothesis import given
from hypothesis import strategies as st

from recsys.api.cache import ResponseCache


def test_what_was_asked_for_longest_ago_makes_room() -> None:
    cache = ResponseCache(max_bytes=2000)
    for key in "abc":
        cache.put(key, b"x" * 100)
    assert cache.get("a") is not None
    cache.put("d", b"x" * 100)
    assert [key for key in "abcd" if cache.get(key) is not None] == ["a", "c", "d"]


def test_a_cache_of_no_bytes_keeps_nothing() -> None:
    cache = ResponseCache(max_bytes=0)
    cache.put("a", b"x")
    assert cache.get("a") is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3000)), max_size=60))
def test_memory_is_bounded_and_the_last_that_fits_is_there(puts: list[tuple[int, int]]) -> None:
    cache = ResponseCache(max_bytes=4000)
    for key, size in puts:
        cache.put(key, b"x" * size)
        assert cache.num_bytes <= 4000
        if size + 512 <= 4000:
            assert cache.get(key) == b"x" * size
