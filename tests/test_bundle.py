import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pandas.testing import assert_frame_equal

from recsys.bundle import (
    add_file,
    list_bundles,
    read_bundle,
    read_manifest,
    write_bundle,
    write_metrics,
)
from recsys.bundle import files as bundle_module
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.index_builders import FlatIndexBuilder

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
    assert manifest["format_version"] == 3
    assert pd.Timestamp(manifest["created_at"]).tz is not None
    assert manifest["files"].keys() == {
        *("index.faiss", "items.parquet", "reranker.safetensors", "retrieval.safetensors")
    }
