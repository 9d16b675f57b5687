"""Writing and reading the files of a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.bundle.manifest import (
    INDEX_FILE,
    MANIFEST_FILE,
    TRAIN,
    Manifest,
    file_digest,
    full_manifest,
    json_bytes,
    read_manifest,
)
from recsys.bundle.placing import LATEST, fsync, make_latest, put_in_place, unfinished
from recsys.bundle.tables import read_table
from recsys.core.bounded import parse_json, read_bounded
from recsys.core.names import check_plain_name
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.index import CandidateIndex

METRICS_FILE = "metrics.json"

_RESERVED_NAMES = {LATEST, "logs", "cache"}
_MAX_METRICS_BYTES = 8_000_000
_ATTEMPTS = 3
_RESTORE = f"restore the file, or {TRAIN}"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    manifest: what the writer said of it, and ``format_version, version, created_at, git_commit,
    files``. tensors: per ``<key>.safetensors``, its tensors by name, on the CPU. frames: per
    ``<key>.parquet``, the frame. graphs: per ``<key>.onnx``, its content.
    """

    path: Path
    manifest: Manifest
    tensors: dict[str, dict[str, Tensor]]
    frames: dict[str, pd.DataFrame]
    graphs: dict[str, bytes]
    index: CandidateIndex

    @property
    def version(self) -> str:
        """Name and content hash: what answers call ``model_version``."""
        return str(self.manifest["version"])

    def vocabulary(self, key: str, column: str) -> Vocabulary:
        """The ids in ``column`` of frame ``key``, in row order.

        Raises:
            InputError: when their hash is not the manifest's ``vocabularies[key]``.
        """
        expected = str(self.manifest["vocabularies"].get(key))
        try:
            vocabulary = Vocabulary(self.frames[key][column].tolist())
            found = vocabulary.content_hash()
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"ids in {key} of {self.path}", str(error), _RESTORE) from error
        if found != expected:
            raise InputError(
                f"the {key} vocabulary {expected[:12]}… that {self.path} was trained with",
                f"{found[:12]}…",
                f"restore its files, or {TRAIN}",
            )
        return vocabulary


def write_bundle(
    root: Path,
    name: str,
    *,
    manifest: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    frames: Mapping[str, pd.DataFrame],
    index: CandidateIndex,
    graphs: Mapping[str, bytes] = MappingProxyType({}),
    metrics: Mapping[str, Any] | None = None,
    latest: bool = True,
) -> Path:
    """Write ``<root>/<name>``, in one step, also where it replaces an older bundle of that name.

    Args:
        manifest: JSON values to keep in the manifest; ``vocabularies`` maps a frame's key to the
            content hash that ``Bundle.vocabulary`` checks.
        tensors: per file, tensors by name, on any device.
        frames: per file, a frame; its index is not kept.
        graphs: per file, a model in ONNX.
        latest: whether ``latest`` names it from now on; see ``make_latest``.

    Returns:
        The bundle's folder.

    Raises:
        InputError: when the name cannot be a bundle's.
        ValueError: when a manifest value is no JSON (NaN included).
    """
    bundle = root / check_bundle_name(name)
    root.mkdir(parents=True, exist_ok=True)
    with unfinished(root, name) as partial:
        for key, by_name in tensors.items():
            stored = {k: tensor.detach().cpu().contiguous() for k, tensor in by_name.items()}
            save_file(stored, partial / f"{key}.safetensors")
        for key, frame in frames.items():
            frame.to_parquet(partial / f"{key}.parquet", index=False)
        for key, graph in graphs.items():
            (partial / f"{key}.onnx").write_bytes(graph)
        index.save(partial / INDEX_FILE)
        full = full_manifest(name, manifest, partial)
        (partial / MANIFEST_FILE).write_bytes(json_bytes(full))
        if metrics is not None:
            (partial / METRICS_FILE).write_bytes(json_bytes(metrics))
        for path in [*partial.iterdir(), partial]:
            fsync(path)
        put_in_place(partial, bundle)
    if latest:
        make_latest(bundle)
    return bundle


def read_bundle(path: Path) -> Bundle:
    """Read a bundle, checking each file's size and SHA-256 against the manifest.

    Raises:
        InputError: when there is no bundle, its format is newer, or anything in it is missing or
            not as it was written.
    """
    for _ in range(_ATTEMPTS):
        # A link may name another bundle by the time that the next file is read, and another bundle
        # of the same name may have taken this one's place by then.
        folder = path.resolve()
        manifest = read_manifest(folder if folder.is_dir() else path)
        try:
            found: Bundle | InputError = _read_files(folder, manifest)
        except InputError as error:
            found = error
        except OSError as error:
            found = InputError(f"files of {folder} that can be read", str(error), _RESTORE)
        if read_manifest(folder) == manifest:
            if isinstance(found, InputError):
                raise found
            return found
    raise InputError(f"a bundle in {path}", "one that is replaced again and again", "try again")


def _read_files(folder: Path, manifest: Manifest) -> Bundle:
    files = {folder / name: written for name, written in sorted(manifest["files"].items())}
    for file, written in files.items():
        _check_file(file, written)
    tensors, frames, graphs = {}, {}, {}
    for file in files:
        if file.suffix == ".safetensors":
            tensors[file.stem] = _read_tensors(file)
        elif file.suffix == ".parquet":
            frames[file.stem] = read_table(file, _RESTORE)
        elif file.suffix == ".onnx":
            graphs[file.stem] = file.read_bytes()
    index = CandidateIndex.load(folder / INDEX_FILE)
    return Bundle(folder, manifest, tensors, frames, graphs, index)


def _read_tensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(f"tensors in {file}", reason, _RESTORE) from error


def add_file(bundle: Path, name: str, content: bytes) -> Path:
    """Put a file that the manifest does not cover (a report) into a bundle, all of it or nothing.

    Raises:
        ValueError: when the manifest covers a file of that name.
    """
    if name == MANIFEST_FILE or name in read_manifest(bundle)["files"]:
        raise ValueError(f"{name} is part of the bundle {bundle} and cannot be replaced")
    partial = bundle / f".{name}.partial"
    partial.write_bytes(content)
    fsync(partial)
    placed = partial.replace(bundle / name)
    fsync(bundle)
    return placed


def write_metrics(bundle: Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``metrics.json`` beside the manifest."""
    return add_file(bundle, METRICS_FILE, json_bytes(metrics))


def read_metrics(bundle: Path) -> Any:
    """The content of ``metrics.json``; None where there is none yet.

    Raises:
        InputError: when it is no JSON, or too much of it.
    """
    file = bundle / METRICS_FILE
    try:
        return parse_json(read_bounded(file, _MAX_METRICS_BYTES, "remove it"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"metrics in {file}", str(error), "remove it") from error


def check_bundle_name(name: object) -> str:
    """The name itself, if a bundle may have it.

    Raises:
        InputError: when it cannot be a folder's beside others.
    """
    remedy = f"use letters, digits and dashes, and none of {', '.join(sorted(_RESERVED_NAMES))}"
    checked = check_plain_name(name, "a bundle name", remedy)
    if checked in _RESERVED_NAMES:
        raise InputError("a bundle name that is not taken", repr(name), remedy)
    return checked


def _check_file(path: Path, written: Mapping[str, Any]) -> None:
    if path.is_symlink() or not path.is_file():
        found = "a link" if path.is_symlink() else "no such file"
        raise InputError(f"{path.name} in the bundle {path.parent}", found, _RESTORE)
    size = path.stat().st_size
    if size != written["bytes"]:
        raise InputError(f"{written['bytes']} bytes in {path}", f"{size} bytes", _RESTORE)
    digest = file_digest(path)
    if digest != written["sha256"]:
        expected = f"SHA-256 {written['sha256'][:12]}… of {path}"
        raise InputError(expected, f"{digest[:12]}… (the file is damaged)", _RESTORE)
