"""The artifact on disk: tensors, tables, an index, and a manifest that vouches for them.

``<root>/<name>/`` holds ``manifest.json``, ``*.safetensors``, ``*.parquet``, ``index.faiss`` and
perhaps ``*.onnx``; ``metrics.json`` and ``report.html`` come later. Nothing in it is pickled: a
bundle from elsewhere cannot run code. A bundle appears under its name when it is complete, or not
at all.
"""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.index import CandidateIndex

FORMAT_VERSION = 3
LATEST = "latest"
MANIFEST_FILE = "manifest.json"
METRICS_FILE = "metrics.json"
INDEX_FILE = "index.faiss"

_RESERVED_NAMES = {LATEST, "logs", "cache"}
_TRAIN = "run: python train.py stage=all"
_SELF_DIGEST = "manifest_sha256"

Manifest = dict[str, Any]


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
        vocabulary = Vocabulary(self.frames[key][column].tolist())
        expected, found = self.manifest["vocabularies"][key], vocabulary.content_hash()
        if found != expected:
            raise InputError(
                f"the {key} vocabulary {expected[:12]}… that {self.path} was trained with",
                f"{found[:12]}…",
                f"restore its files, or {_TRAIN}",
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
) -> Path:
    """Write ``<root>/<name>``, replacing an older bundle of that name, and point ``latest`` to it.

    Args:
        manifest: JSON values to keep in the manifest; ``vocabularies`` maps a frame's key to the
            content hash that ``Bundle.vocabulary`` checks.
        tensors: per file, tensors by name, on any device.
        frames: per file, a frame; its index is not kept.
        graphs: per file, a model in ONNX.

    Returns:
        The bundle's folder.

    Raises:
        InputError: when the name cannot be a bundle's.
        ValueError: when a manifest value is no JSON (NaN included).
    """
    _check_name(name)
    root.mkdir(parents=True, exist_ok=True)
    # A fixed name, so that what a killed run has left behind is cleared by the next one.
    partial = root / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        for key, by_name in tensors.items():
            stored = {k: tensor.detach().cpu().contiguous() for k, tensor in by_name.items()}
            save_file(stored, partial / f"{key}.safetensors")
        for key, frame in frames.items():
            frame.to_parquet(partial / f"{key}.parquet", index=False)
        for key, graph in graphs.items():
            (partial / f"{key}.onnx").write_bytes(graph)
        index.save(partial / INDEX_FILE)
        full = _full_manifest(name, manifest, partial)
        (partial / MANIFEST_FILE).write_bytes(_json_bytes(full))
        if metrics is not None:
            (partial / METRICS_FILE).write_bytes(_json_bytes(metrics))
        for path in [*partial.iterdir(), partial]:
            _fsync(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    bundle = root / name
    _move_into_place(partial, bundle)
    _point_latest(root, name)
    return bundle


def read_bundle(path: Path) -> Bundle:
    """Read a bundle, checking each file's size and SHA-256 against the manifest.

    Raises:
        InputError: when there is no bundle, its format is newer, or anything in it is missing or
            not as it was written.
    """
    manifest = read_manifest(path)
    folder = path.resolve()
    tensors, frames, graphs = {}, {}, {}
    for name, written in manifest["files"].items():
        _check_file(folder / name, written)
    for file in sorted(folder / name for name in manifest["files"]):
        if file.suffix == ".safetensors":
            tensors[file.stem] = load_file(file)
        elif file.suffix == ".parquet":
            frames[file.stem] = pd.read_parquet(file)
        elif file.suffix == ".onnx":
            graphs[file.stem] = file.read_bytes()
    index = CandidateIndex.load(folder / INDEX_FILE)
    return Bundle(folder, manifest, tensors, frames, graphs, index)


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle in ``path``, itself checked, the other files not.

    Raises:
        InputError: when it is missing, damaged, or of a newer format.
    """
    expected, file = f"a bundle in {path}", path / MANIFEST_FILE
    if not file.is_file():
        found = f"no {MANIFEST_FILE} in it" if path.is_dir() else "no such folder"
        others = [str(other) for other in list_bundles(path.parent)]
        hint = f", or set bundle= to one of {', '.join(others)}" if others else ""
        raise InputError(expected, found, _TRAIN + hint)
    damaged = f"a {MANIFEST_FILE} that was changed after it was written"
    again = f"restore {file}, or {_TRAIN}"
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        raise InputError(expected, f"{MANIFEST_FILE} that is no JSON ({error})", again) from error
    if not isinstance(manifest, dict):
        raise InputError(expected, damaged, again)
    version = manifest.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        age, other = ("newer", "update the code") if version > FORMAT_VERSION else ("older", "")
        raise InputError(
            f"bundle format {FORMAT_VERSION} in {path}",
            f"format {version}, written by {age} code",
            " or ".join(filter(None, (other, _TRAIN))),
        )
    if manifest.pop(_SELF_DIGEST, None) != _digest(_json_bytes(manifest)):
        raise InputError(expected, damaged, again)
    return manifest


def list_bundles(root: Path) -> list[Path]:
    """The complete bundles directly under ``root``, oldest first; ``latest`` is not one of them."""
    manifests = [
        path for path in root.glob(f"[!.]*/{MANIFEST_FILE}") if not path.parent.is_symlink()
    ]
    return [path.parent for path in sorted(manifests, key=lambda path: path.stat().st_mtime_ns)]


def add_file(bundle: Path, name: str, content: bytes) -> Path:
    """Put a file that the manifest does not cover (a report) into a bundle, all of it or nothing.

    Raises:
        ValueError: when the manifest covers a file of that name.
    """
    if name == MANIFEST_FILE or name in read_manifest(bundle)["files"]:
        raise ValueError(f"{name} is part of the bundle {bundle} and cannot be replaced")
    partial = bundle / f".{name}.partial"
    partial.write_bytes(content)
    _fsync(partial)
    return partial.replace(bundle / name)


def write_metrics(bundle: Path, metrics: Mapping[str, Any]) -> Path:
    """Write ``metrics.json`` beside the manifest."""
    return add_file(bundle, METRICS_FILE, _json_bytes(metrics))


def _check_name(name: str) -> None:
    if not name or name.startswith(".") or Path(name).name != name or name in _RESERVED_NAMES:
        raise InputError(
            "a bundle name that can be a folder's",
            repr(name),
            f"use letters, digits and dashes, and none of {sorted(_RESERVED_NAMES)}",
        )


def _full_manifest(name: str, given: Mapping[str, Any], folder: Path) -> Manifest:
    """The caller's values, what identifies the bundle, and a digest of every file in ``folder``."""
    files = {
        path.name: {"sha256": _file_digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    manifest: Manifest = {
        "format_version": FORMAT_VERSION,
        "version": f"{name}-{_digest(_json_bytes(files))[:8]}",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        **given,
        "files": files,
    }
    return {**manifest, _SELF_DIGEST: _digest(_json_bytes(manifest))}


def _check_file(path: Path, written: Mapping[str, Any]) -> None:
    restore = f"restore the file, or {_TRAIN}"
    if not path.is_file():
        raise InputError(f"{path.name} in the bundle {path.parent}", "no such file", restore)
    size = path.stat().st_size
    if size != written["bytes"]:
        raise InputError(f"{written['bytes']} bytes in {path}", f"{size} bytes", restore)
    digest = _file_digest(path)
    if digest != written["sha256"]:
        expected = f"SHA-256 {written['sha256'][:12]}… of {path}"
        raise InputError(expected, f"{digest[:12]}… (the file is damaged)", restore)


def _move_into_place(partial: Path, bundle: Path) -> None:
    """Rename; a folder cannot be renamed over a full one, so an older bundle steps aside first."""
    replaced = bundle.with_name(f".{bundle.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if bundle.exists():
        bundle.rename(replaced)
    partial.rename(bundle)
    _fsync(bundle.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _point_latest(root: Path, name: str) -> None:
    link = root / f".{LATEST}.partial"
    link.unlink(missing_ok=True)
    link.symlink_to(name)
    link.replace(root / LATEST)
    _fsync(root)


def _git_commit() -> str | None:
    """The commit of this code, ``-dirty`` when changed since; None outside a git checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _json_bytes(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
