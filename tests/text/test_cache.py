import hashlib
import logging
import multiprocessing
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from recsys.text import cache as cache_module
from recsys.text.cache import EmbeddingCache, item_vectors


class CountingEncoder:
    """A vector that is a function of the text, and a record of the texts embedded."""

    dim = 8

    def __init__(self, fingerprint: str = "f" * 64) -> None:
        self.fingerprint = fingerprint
        self.embedded: list[str] = []

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += texts
        digests = [hashlib.sha256(text.encode()).digest()[: self.dim] for text in texts]
        return np.array([list(digest) for digest in digests], dtype=np.float32)


class RefusingEncoder(CountingEncoder):
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        raise AssertionError(f"asked to embed {len(texts)} texts")


TEXTS = [f"text {n}" for n in range(50)]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_second_run_embeds_nothing_and_gives_the_same_bits(tmp_path):
    first = EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS)
    second = EmbeddingCache(tmp_path).encode(RefusingEncoder(), TEXTS)
    np.testing.assert_array_equal(first, second)
    assert second.dtype == np.float32


def test_a_new_item_embeds_one_text(tmp_path):
    EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS)
    encoder = CountingEncoder()
    EmbeddingCache(tmp_path).encode(encoder, ["new", *TEXTS])
    assert encoder.embedded == ["new"]


def test_rows_follow_the_texts_in_any_order_and_with_repeats(tmp_path):
    encoder = CountingEncoder()
    cache = EmbeddingCache(tmp_path)
    cache.encode(encoder, TEXTS[:20])
    asked = [*TEXTS[::-3], "new", TEXTS[0], "new"]
    np.testing.assert_array_equal(cache.encode(encoder, asked), CountingEncoder().encode(asked))
    assert encoder.embedded.count("new") == 1


def test_another_encoder_shares_nothing(tmp_path):
    EmbeddingCache(tmp_path).encode(CountingEncoder("a" * 64), TEXTS)
    for fingerprint in ("b" * 64, "a" * 16 + "b" * 48):
        other = CountingEncoder(fingerprint)
        EmbeddingCache(tmp_path).encode(other, TEXTS)
        assert sorted(other.embedded) == sorted(TEXTS)


def test_texts_without_a_letter_are_ids_and_are_not_embedded(tmp_path):
    encoder = CountingEncoder()
    cache = EmbeddingCache(tmp_path)
    vectors = item_vectors(cache, encoder, ["12.", "7-3_4."])
    assert vectors.shape == (2, encoder.dim)
    assert not vectors.any()
    assert not encoder.embedded
    assert item_vectors(cache, encoder, ["12.", "7b."]).any(axis=1).all()


def test_no_texts_give_no_rows(tmp_path):
    assert EmbeddingCache(tmp_path).encode(RefusingEncoder(), []).shape == (0, 8)


def test_the_log_says_how_many_were_cached_and_embedded(tmp_path, caplog):
    EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS[:49])
    with caplog.at_level(logging.INFO):
        EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS)
    assert "49 cached, 1 to embed" in caplog.text


def test_keys_that_hold_zero_bytes_are_told_apart():
    keys = np.zeros((3, 32), dtype=np.uint8)
    keys[1, 31] = 1
    keys[2, 0] = 1
    assert len(np.unique(cache_module._as_strings(keys))) == 3


class TestDamage:
    @pytest.mark.parametrize(
        "damage",
        [
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            lambda content: content[: len(content) // 2],
            lambda content: b"",
        ],
        ids=["flipped bit", "truncated", "empty"],
    )
    def test_a_damaged_file_is_logged_dropped_and_embedded_again(self, tmp_path, caplog, damage):
        expected = EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS)
        (path,) = files(tmp_path)
        path.write_bytes(damage(path.read_bytes()))
        again = CountingEncoder()
        np.testing.assert_array_equal(EmbeddingCache(tmp_path).encode(again, TEXTS), expected)
        assert sorted(again.embedded) == sorted(TEXTS)
        assert f"{path} is corrupt" in caplog.text
        EmbeddingCache(tmp_path).encode(RefusingEncoder(), TEXTS)

    def test_a_file_that_is_not_ours_under_a_true_checksum_is_dropped(self, tmp_path, caplog):
        EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS)
        (path,) = files(tmp_path)
        name = hashlib.sha256(b"not tensors").hexdigest()
        path.with_name(f"{name}.safetensors").write_bytes(b"not tensors")
        EmbeddingCache(tmp_path).encode(CountingEncoder(), [*TEXTS, "new"])
        assert name in caplog.text

    def test_a_write_that_was_cut_off_is_not_seen(self, tmp_path):
        EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS)
        (path,) = files(tmp_path)
        (path.parent / ".half.part").write_bytes(path.read_bytes()[:100])
        EmbeddingCache(tmp_path).encode(RefusingEncoder(), TEXTS)

    def test_an_interrupted_run_keeps_what_it_had_embedded(self, tmp_path, monkeypatch):
        monkeypatch.setattr(cache_module, "_TEXTS_PER_FILE", 20)

        class Interrupted(CountingEncoder):
            def encode(self, texts):
                if len(self.embedded) == 40:
                    raise KeyboardInterrupt
                return super().encode(texts)

        with pytest.raises(KeyboardInterrupt):
            EmbeddingCache(tmp_path).encode(Interrupted(), TEXTS)
        rest = CountingEncoder()
        EmbeddingCache(tmp_path).encode(rest, TEXTS)
        assert len(rest.embedded) == 10

    def test_a_cache_that_cannot_be_written_warns_and_still_answers(self, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        found = EmbeddingCache(tmp_path / "file").encode(CountingEncoder(), TEXTS)
        np.testing.assert_array_equal(found, CountingEncoder().encode(TEXTS))
        assert "cannot write" in caplog.text


class SlowEncoder(CountingEncoder):
    def encode(self, texts: Sequence[str]) -> np.ndarray:
        time.sleep(0.02)
        return super().encode(texts)


def _fill_one_text_per_file(folder: Path) -> None:
    cache_module._TEXTS_PER_FILE = 1
    EmbeddingCache(folder).encode(SlowEncoder(), TEXTS)


def test_a_killed_writer_leaves_only_whole_files(tmp_path, caplog):
    writer = multiprocessing.get_context("spawn").Process(
        target=_fill_one_text_per_file, args=(tmp_path,)
    )
    writer.start()
    while len(files(tmp_path)) < 3:
        assert writer.is_alive()
        time.sleep(0.005)
    writer.kill()
    writer.join()
    rest = CountingEncoder()
    found = EmbeddingCache(tmp_path).encode(rest, TEXTS)
    np.testing.assert_array_equal(found, CountingEncoder().encode(TEXTS))
    assert len(rest.embedded) <= len(TEXTS) - 3
    assert "corrupt" not in caplog.text


def _fill(folder: Path, start: int) -> None:
    EmbeddingCache(folder).encode(CountingEncoder(), TEXTS[start : start + 30])


def test_writers_at_the_same_time_do_not_harm_each_other(tmp_path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_fill, args=(tmp_path, start)) for start in (0, 10, 20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    found = EmbeddingCache(tmp_path).encode(RefusingEncoder(), TEXTS)
    np.testing.assert_array_equal(found, CountingEncoder().encode(TEXTS))


def test_a_file_larger_than_any_that_is_written_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(cache_module, "_TEXTS_PER_FILE", 50)
    EmbeddingCache(tmp_path).encode(CountingEncoder(), TEXTS)
    assert EmbeddingCache(tmp_path).encode(RefusingEncoder(), TEXTS).shape == (50, 8)
    (file,) = files(tmp_path)
    with file.open("r+b") as out:
        out.truncate(10**10)  # a hole
    encoder = CountingEncoder()
    EmbeddingCache(tmp_path).encode(encoder, TEXTS)
    assert len(encoder.embedded) == 50
