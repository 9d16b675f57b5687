"""Text vectors on disk: a text is embedded once per encoder, ever."""

import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import SafetensorError
from safetensors.numpy import load, save

from recsys.core.bounded import read_bounded

if TYPE_CHECKING:  # torch takes seconds to import, and reading vectors needs none of it
    from recsys.text.encoder import TextEncoder


log = logging.getLogger(__name__)

_TEXTS_PER_FILE = 256
"""Texts embedded between two writes: what an interrupted run loses at most."""
_MAX_HEADER = 10_000
_LETTER = re.compile(r"[^\W\d_]")


class EmbeddingCache:
    """Vectors of texts in ``folder``, one sub-folder per encoder fingerprint.

    Each write adds one safetensors file ``{"keys": uint8 [n, 32], "vectors": float32 [n, dim]}``
    that is never changed and is named by the SHA-256 of its bytes. It is written under a temporary
    name and renamed, so a killed writer leaves nothing that looks complete and concurrent writers
    never meet; a file whose bytes do not match its name is dropped and its texts are embedded
    again. A vector's key is SHA-256(fingerprint, text); the fingerprint covers the template.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)

    def encode(self, encoder: "TextEncoder", texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 [n, dim] of n texts; only texts not cached (and each once) are embedded.

        A cache that cannot be written is a warning, not an error: the vectors are still right.
        """
        fingerprint = encoder.fingerprint
        folder = self._folder / fingerprint[:16]
        rows: dict[bytes, int] = {}
        row_of_text = [rows.setdefault(_key(fingerprint, text), len(rows)) for text in texts]
        distinct = dict(zip(row_of_text, texts, strict=True))

        vectors = np.zeros((len(rows), encoder.dim), dtype=np.float32)
        keys = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(-1, 32)
        missing = np.flatnonzero(~_read(folder, keys, vectors))
        log.info("text vectors: %d cached, %d to embed", len(rows) - len(missing), len(missing))
        # Texts of like length share a call, which leaves little padding.
        by_length = np.argsort([-len(distinct[row]) for row in missing.tolist()], kind="stable")
        missing = missing[by_length]
        with _progress() as progress:
            task = progress.add_task("Embedding texts", total=len(missing))
            for start in range(0, len(missing), _TEXTS_PER_FILE):
                part = missing[start : start + _TEXTS_PER_FILE]
                vectors[part] = encoder.encode([distinct[row] for row in part.tolist()])
                _write(folder, keys[part], vectors[part])
                progress.advance(task, len(part))
        if len(rows) == len(texts):
            return vectors
        return vectors[np.array(row_of_text, dtype=np.int64)]


def item_vectors(
    cache: EmbeddingCache, encoder: "TextEncoder", texts: Sequence[str]
) -> NDArray[np.float32]:
    """Vectors float32 [n, dim] of a catalogue's n texts; zeros where none of them has a letter.

    Such texts are ids, as of a catalogue without a table of items, and tell nothing.
    """
    if any(map(_LETTER.search, texts)):
        return cache.encode(encoder, texts)
    return np.zeros((len(texts), encoder.dim), np.float32)


def _key(fingerprint: str, text: str) -> bytes:
    return hashlib.sha256(f"{fingerprint}\0{text}".encode()).digest()


def _as_strings(keys: NDArray[np.uint8]) -> NDArray[np.bytes_]:
    """Keys uint8 [n, 32] as an array [n] that sorts and compares."""
    return np.ascontiguousarray(keys).view("S32").reshape(-1)


def _read(folder: Path, keys: NDArray[np.uint8], out: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Fill the rows of ``out`` whose keys are cached, one file in memory at a time; which: [n]."""
    found = np.zeros(len(keys), dtype=bool)
    wanted = _as_strings(keys)
    order = np.argsort(wanted)
    for path in sorted(folder.glob("*.safetensors")):
        if found.all():
            break
        stored = _read_file(path, width=out.shape[1])
        if stored is None:
            continue
        stored_keys, stored_vectors = stored
        position = np.minimum(np.searchsorted(wanted, stored_keys, sorter=order), len(wanted) - 1)
        target = order[position]
        match = wanted[target] == stored_keys
        out[target[match]] = stored_vectors[match]
        found[target[match]] = True
    return found


def _read_file(path: Path, width: int) -> tuple[NDArray[np.bytes_], NDArray[np.float32]] | None:
    """Keys [n] and vectors [n, width] of one file, or None (logged) when it cannot be trusted."""
    try:
        content = read_bounded(path, _TEXTS_PER_FILE * (32 + 4 * width) + _MAX_HEADER, "remove it")
        if hashlib.sha256(content).hexdigest() != path.stem:
            raise ValueError("its bytes do not match the checksum in its name")
        tensors = load(content)
        keys, vectors = tensors["keys"], tensors["vectors"]
        if vectors.shape != (len(keys), width) or vectors.dtype != np.float32:
            raise ValueError(f"vectors are {vectors.dtype} {vectors.shape}, width {width} expected")
        return _as_strings(keys), vectors
    except (ValueError, KeyError, SafetensorError) as error:
        log.warning("text cache: %s is corrupt (%s); its texts are embedded again", path, error)
        _discard(path)
    except OSError as error:
        log.warning("text cache: cannot read %s: %s", path, error)
    return None


def _write(folder: Path, keys: NDArray[np.uint8], vectors: NDArray[np.float32]) -> None:
    tensors: dict[str, NDArray[Any]] = {"keys": keys, "vectors": vectors}
    content = save(tensors)
    temporary: Path | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=folder)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        temporary.replace(folder / f"{hashlib.sha256(content).hexdigest()}.safetensors")
    except OSError as error:
        log.warning("text cache: cannot write to %s: %s", folder, error)
        if temporary is not None:
            _discard(temporary)


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("text cache: cannot remove %s: %s", path, error)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        transient=True,
        disable=not sys.stdout.isatty(),
    )
