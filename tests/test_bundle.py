import contextlib
import hashlib
import itertools
import json
import pickle
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pandas.testing import assert_frame_equal

from recsys.bundle import (
    add_file,
    list_bundles,
    make_latest,
    placing,
    read_bundle,
    read_manifest,
    read_metrics,
    write_bundle,
    write_metrics,
)
from recsys.bundle import files as bundle_module
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.index.builders import FlatIndexBuilder

EMBEDDINGS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
TENSORS = {
    "retrieval": {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)},
    "reranker": {"bias": torch.randn(3, generator=torch.Generator().manual_seed(0))},
}
FILES = ["index.faiss", "items.parquet", "manifest.json", "reranker.safetensors"]


def items_frame(ids: list[int] | list[str]) -> pd.DataFrame:
    years = pd.array([1994, None, 2001, 1977, 1980], dtype="Int64")
    return pd.DataFrame({"item_id": ids, "title": list("ÀBCDE"), "year": years})


def write(
    root: Path, name: str = "tiny", ids: list[int] | list[str] | None = None, **extra
) -> Path:
    items = items_frame(ids or [10, 20, 30, 40, 50])
    vocabularies = {"items": Vocabulary(items["item_id"].tolist()).content_hash()}
    given = {
        "manifest": {"config": {"seed": 1, "text": "é"}, "vocabularies": vocabularies},
        "tensors": TENSORS,
        "frames": {"items": items},
        "index": FlatIndexBuilder().build(EMBEDDINGS),
    }
    return write_bundle(root, name, **{**given, **extra})


@pytest.mark.parametrize("ids", [[30, 10, 20, 50, 40], ["b", "a", "ç", "10", "x y"]])
def test_round_trip(ids, tmp_path: Path):
    path = write(tmp_path, ids=ids)
    bundle = read_bundle(tmp_path / "latest")
    assert bundle.path == path.resolve()
    assert bundle.manifest["config"] == {"seed": 1, "text": "é"}
    assert_frame_equal(bundle.frames["items"], items_frame(ids))
    assert bundle.vocabulary("items", "item_id").ids.tolist() == ids
    assert bundle.tensors.keys() == TENSORS.keys()
    for key, tensors in TENSORS.items():
        for name, tensor in tensors.items():
            assert torch.equal(bundle.tensors[key][name], tensor)
    _, found = bundle.index.search(EMBEDDINGS[1:2], 5)
    assert sorted(found[0]) == [1, 2, 3, 4, 5]


def test_version_names_the_content(tmp_path: Path):
    first = read_bundle(write(tmp_path / "a")).version
    assert first == read_bundle(write(tmp_path / "b")).version
    other = {"reranker": {"bias": torch.zeros(3)}}
    assert first != read_bundle(write(tmp_path / "c", tensors=other)).version
    assert first.startswith("tiny-")


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_refused(name: str, tmp_path: Path):
    file = write(tmp_path) / name
    content = file.read_bytes()
    positions = np.random.default_rng(0).integers(len(content) * 8, size=60)
    for position in [0, len(content) * 8 - 9, *positions.tolist()]:
        damaged = bytearray(content)
        damaged[position // 8] ^= 1 << position % 8
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"expected .*; found .*python train\.py stage=all"):
            read_bundle(tmp_path / "tiny")


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(name: str, tmp_path: Path):
    file = write(tmp_path) / name
    content = file.read_bytes()
    for kept in [0, 1, len(content) // 2, len(content) - 2]:
        file.write_bytes(content[:kept])
        with pytest.raises(InputError, match=r"python train\.py stage=all"):
            read_bundle(tmp_path / "tiny")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused_by_name(name: str, tmp_path: Path):
    (write(tmp_path) / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        read_bundle(tmp_path / "tiny")


def test_a_missing_bundle_names_the_command_and_the_others(tmp_path: Path):
    with pytest.raises(InputError, match=r"found no such folder; run: python train\.py stage=all$"):
        read_bundle(tmp_path / "latest")
    write(tmp_path)
    with pytest.raises(InputError, match=r"or set bundle= to one of .*/tiny$"):
        read_bundle(tmp_path / "tyni")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (99, "found format 99, written by newer code; update the code or run: python train.py"),
        (1, "found format 1, written by older code; run: python train.py stage=all"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, version: int, message: str):
    file = write(tmp_path) / "manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(json.dumps({**manifest, "format_version": version}))
    with pytest.raises(InputError, match=message):
        read_bundle(tmp_path / "tiny")


def test_another_vocabulary_than_the_trained_one_is_refused(tmp_path: Path):
    write(tmp_path, manifest={"vocabularies": {"items": Vocabulary([10, 20]).content_hash()}})
    with pytest.raises(InputError, match="expected the items vocabulary"):
        read_bundle(tmp_path / "tiny").vocabulary("items", "item_id")


def test_latest_is_the_newest_complete_bundle(tmp_path: Path):
    write(tmp_path, "first")
    write(tmp_path, "second")
    assert (tmp_path / "latest").readlink() == Path("second")
    write(tmp_path, "first")
    assert (tmp_path / "latest").readlink() == Path("first")
    assert [path.name for path in list_bundles(tmp_path)] == ["second", "first"]


@pytest.mark.parametrize("step", ["save_file", "full_manifest", "json_bytes", "fsync"])
@pytest.mark.parametrize("name", ["old", "new"])
def test_a_write_that_stops_halfway_changes_nothing(step, name, tmp_path, monkeypatch):
    version = read_bundle(write(tmp_path, "old")).version

    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle_module, step, stop)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, name, tensors={"reranker": {"bias": torch.zeros(3)}})
    monkeypatch.undo()
    assert read_bundle(tmp_path / "latest").version == version
    assert {path.name for path in tmp_path.iterdir()} == {"old", "latest"}


def test_leftovers_of_a_killed_write_are_no_bundle_and_go_away(tmp_path: Path):
    leftover = tmp_path / ".tiny.partial"
    leftover.mkdir()
    (leftover / "manifest.json").write_text("{}")
    assert list_bundles(tmp_path) == []
    write(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "latest"}
    assert not list((tmp_path / "tiny").glob("*.partial"))


def test_an_older_bundle_of_the_same_name_is_replaced_whole(tmp_path: Path):
    add_file(write(tmp_path), "report.html", b"old")
    write(tmp_path, tensors={"retrieval": TENSORS["retrieval"]})
    assert read_bundle(tmp_path / "tiny").tensors.keys() == {"retrieval"}
    assert not (tmp_path / "tiny" / "report.html").exists()
    assert not (tmp_path / "tiny" / "reranker.safetensors").exists()


def test_logs_and_cache_are_no_bundles(tmp_path: Path):
    for folder in ["logs/run", "cache/text"]:
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "manifest.json").write_text("{}")
    write(tmp_path)
    assert list_bundles(tmp_path) == [tmp_path / "tiny"]


@pytest.mark.parametrize("name", ["", "latest", "logs", "cache", ".hidden", "a/b", ".."])
def test_names_that_cannot_be_a_bundle_are_refused(name: str, tmp_path: Path):
    with pytest.raises(InputError, match="bundle name"):
        write(tmp_path, name)


LONG = "x" * 151


@pytest.mark.parametrize("name", [LONG, "a\\b", "a\nb", "\ud800", " a"])
def test_names_of_other_kinds_are_refused(name: str, tmp_path: Path):
    with pytest.raises(InputError, match="bundle name"):
        write(tmp_path, name)


def revouched(path: Path, change) -> Path:
    """A bundle whose manifest is changed, and vouches for the change."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_text())
    del manifest["manifest_sha256"]
    change(manifest)
    content = json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"
    digest = hashlib.sha256(content.encode(errors="surrogatepass")).hexdigest()
    file.write_text(json.dumps({**manifest, "manifest_sha256": digest}))
    return path


WRITTEN = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}


@pytest.mark.parametrize(
    "name",
    [
        *("../secret.onnx", "/etc/hostname", "../tiny/items.parquet", ".hidden.onnx", "a\\b.onnx"),
        *("secret", "secret.pkl", "secret.bin", "secret.pt", "", "a\n.onnx", f"{LONG}.onnx"),
    ],
)
def test_a_manifest_names_files_of_its_own_kinds_in_its_folder_alone(name: str, tmp_path: Path):
    (tmp_path / "secret.onnx").write_bytes(b"x")
    path = revouched(write(tmp_path), lambda manifest: manifest["files"].update({name: WRITTEN}))
    with pytest.raises(InputError, match="files of its own"):
        read_bundle(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(files=None),
        lambda m: m.update(files=[]),
        lambda m: m.update(files={}),
        lambda m: m["files"].pop("index.faiss"),
        lambda m: m["files"].update({f"{n}.onnx": WRITTEN for n in range(100)}),
        lambda m: m["files"].update({"a.onnx": None}),
        lambda m: m["files"].update({"a.onnx": {"sha256": "x", "bytes": 1}}),
        lambda m: m["files"]["index.faiss"].update(bytes=-1),
        lambda m: m["files"]["index.faiss"].update(bytes="1"),
        lambda m: m["files"]["index.faiss"].update(bytes=10**400),
        lambda m: m.update(version="a\nb"),
        lambda m: m.update(version=None),
        lambda m: m.update(extra=float("inf")),
        lambda m: m.update(extra="\ud800"),
    ],
)
def test_a_manifest_of_another_shape_is_refused(change, tmp_path: Path):
    path = revouched(write(tmp_path), change)
    with pytest.raises(InputError) as refused:
        read_bundle(path)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    "content", ["[" * 10**6, '{"a":' * 10**5, "9" * 10**6, " " * 10**7, "\ud800", "null"]
)
def test_a_manifest_that_is_none_is_refused(content: str, tmp_path: Path):
    (write(tmp_path) / "manifest.json").write_bytes(content.encode(errors="surrogatepass"))
    with pytest.raises(InputError):
        read_bundle(tmp_path / "tiny")


@pytest.mark.parametrize("data_set", ["../../outside/store", "/tmp/store", "a/b", "", None, 5, {}])
def test_a_data_set_has_a_plain_name_whatever_the_manifest_says(data_set, tmp_path: Path):
    path = revouched(write(tmp_path), lambda manifest: manifest.update(dataset=data_set))
    found = read_manifest(path)["dataset"]
    assert found.startswith("data-")
    assert found == read_manifest(path)["dataset"]


@pytest.mark.parametrize("name", [name for name in FILES if name != "manifest.json"])
def test_a_link_in_place_of_a_file_is_not_followed(name: str, tmp_path: Path):
    file = write(tmp_path) / name
    file.rename(tmp_path / name)
    file.symlink_to(tmp_path / name)
    with pytest.raises(InputError, match="found a link"):
        read_bundle(tmp_path / "tiny")


def revouched_file(path: Path, name: str, content: bytes) -> Path:
    (path / name).write_bytes(content)
    written = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return revouched(path, lambda manifest: manifest["files"].update({name: written}))


@pytest.mark.parametrize("name", ["items.parquet", "reranker.safetensors", "index.faiss"])
@pytest.mark.parametrize("content", [b"", b"x", b"PAR1" * 10, b"\xff" * 100])
def test_a_file_that_is_vouched_for_but_none_is_refused(name: str, content: bytes, tmp_path: Path):
    with pytest.raises(InputError):
        read_bundle(revouched_file(write(tmp_path), name, content))


REPEATED = pa.DictionaryArray.from_arrays(np.zeros(20_000, np.int32), ["x" * 100_000])
ZEROS = pa.array(np.zeros(10_000_000, np.int64))


@pytest.mark.parametrize(
    "column",
    [
        REPEATED,
        pa.ListArray.from_arrays(range(0, 20_001, 10), REPEATED),
        ZEROS,
        pa.ListArray.from_arrays(range(0, 10_000_001, 1_000_000), ZEROS),
    ],
    ids=["texts", "lists of texts", "numbers", "lists of numbers"],
)
def test_a_table_that_unpacks_to_too_much_is_refused_before_it_does(column, tmp_path: Path):
    content = pa.BufferOutputStream()
    # Without its schema, texts are not read back as numbers of a dictionary.
    table = pa.table({"item_id": column})
    pq.write_table(table, content, compression="zstd", store_schema=False)
    path = revouched_file(write(tmp_path), "items.parquet", content.getvalue().to_pybytes())
    with pytest.raises(InputError, match="a table of at most"):
        read_bundle(path)


def test_an_index_that_claims_more_than_its_file_holds_is_refused(tmp_path: Path):
    path = write(tmp_path)
    content = bytearray((path / "index.faiss").read_bytes())
    # The vectors' length, in floats, comes right before them.
    at = len(content) - EMBEDDINGS[1:].nbytes - 8
    assert int.from_bytes(content[at : at + 8], "little") in (
        EMBEDDINGS[1:].size,
        EMBEDDINGS[1:].nbytes,
    )
    content[at : at + 8] = (2**34).to_bytes(8, "little")
    with pytest.raises(InputError, match="FAISS index"):
        read_bundle(revouched_file(path, "index.faiss", bytes(content)))


def test_latest_moves_when_it_is_told_to(tmp_path: Path):
    write(tmp_path, "first")
    second = write(tmp_path, "second", latest=False)
    assert (tmp_path / "latest").readlink() == Path("first")
    make_latest(second)
    assert (tmp_path / "latest").readlink() == Path("second")


def test_a_folder_called_latest_is_left_alone(tmp_path: Path):
    (tmp_path / "latest").mkdir()
    with pytest.raises(InputError, match="a link at"):
        write(tmp_path)


@pytest.mark.parametrize("step", ["rename", "replace", "symlink_to", "mkdir", "unlink"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_a_bundle_that_replaces_another_is_killed_anywhere(step, call, tmp_path, monkeypatch):
    """There is a whole bundle under the name, and latest names one, whatever is killed when."""
    write(tmp_path)
    real, calls = getattr(Path, step), itertools.count(1)

    def killed(self, *args, **kwargs):
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(Path, step, killed)
        with contextlib.suppress(KeyboardInterrupt):
            write(tmp_path, tensors={"retrieval": TENSORS["retrieval"]})
    for name in ("tiny", "latest"):
        assert read_bundle(tmp_path / name).tensors.keys() >= {"retrieval"}


def test_readers_always_find_a_whole_bundle_while_it_is_replaced(tmp_path: Path):
    write(tmp_path)
    ended, failures, reads = threading.Event(), [], []

    def read() -> None:
        while not ended.is_set():
            try:
                assert (tmp_path / "tiny" / "manifest.json").exists()
                reads.append(read_bundle(tmp_path / "latest").tensors.keys())
            except Exception as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        kept = TENSORS if number % 2 else {"retrieval": TENSORS["retrieval"]}
        write(tmp_path, tensors=kept)
        # At most two writes fall into one read: a reader tries a few times, and no more.
        known, deadline = len(reads), time.monotonic() + 60
        while len(reads) == known and not failures and time.monotonic() < deadline:
            time.sleep(0.001)
    ended.set()
    reader.join()
    assert not failures
    assert reads


def test_where_names_cannot_be_exchanged_the_old_bundle_steps_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(placing, "_exchange", lambda *_: False)
    write(tmp_path)
    write(tmp_path, tensors={"retrieval": TENSORS["retrieval"]})
    assert read_bundle(tmp_path / "tiny").tensors.keys() == {"retrieval"}
    assert {path.name for path in tmp_path.iterdir()} == {"tiny", "latest"}


def test_a_writer_at_work_is_not_cleared_away(tmp_path: Path):
    with placing.unfinished(tmp_path, "tiny") as other:
        write(tmp_path)
        assert other.exists()


def test_metrics_are_read_within_bounds(tmp_path: Path):
    path = write(tmp_path)
    assert read_metrics(path) is None
    write_metrics(path, {"n_users": 943})
    assert read_metrics(path) == {"n_users": 943}
    for content in ("[" * 10**5, "NaN", "", "0" * 10**7):
        (path / "metrics.json").write_text(content)
        with pytest.raises(InputError):
            read_metrics(path)


def test_metrics_and_reports_come_later_and_leave_the_version_alone(tmp_path: Path):
    path = write(tmp_path, metrics={"n_users": 1})
    version = read_bundle(path).version
    write_metrics(path, {"n_users": 943})
    add_file(path, "report.html", b"<html>")
    assert json.loads((path / "metrics.json").read_text()) == {"n_users": 943}
    assert read_bundle(path).version == version


@pytest.mark.parametrize("name", ["manifest.json", "index.faiss"])
def test_covered_files_cannot_be_replaced(name: str, tmp_path: Path):
    with pytest.raises(ValueError, match="cannot be replaced"):
        add_file(write(tmp_path), name, b"")


def test_nan_is_no_json_and_leaves_no_bundle(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, metrics={"recall@5": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_reading_never_unpickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a bundle was unpickled")

    path = write(tmp_path)
    for owner, name in [(pickle, "load"), (pickle, "loads"), (torch, "load")]:
        monkeypatch.setattr(owner, name, refuse)
    assert read_bundle(path).tensors


def test_manifest_says_what_and_when(tmp_path: Path):
    manifest = read_manifest(write(tmp_path))
    assert manifest["format_version"] == 4
    assert pd.Timestamp(manifest["created_at"]).tz is not None
    assert manifest["files"].keys() == {
        *("index.faiss", "items.parquet", "reranker.safetensors", "retrieval.safetensors")
    }
