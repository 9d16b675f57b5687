"""``manifest.json``: what the writer says of a bundle, with a digest of each file and of itself."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.core.bounded import parse_json, read_bounded
from recsys.core.names import is_plain_name, plain_name
from recsys.core.settings import shown
from recsys.errors import InputError

FORMAT_VERSION = 4
MANIFEST_FILE = "manifest.json"
INDEX_FILE = "index.faiss"
TRAIN = "run: python train.py stage=all"

_SELF_DIGEST = "manifest_sha256"
_MAX_BYTES = 8_000_000
_MAX_FILES = 64
_SUFFIXES = (".safetensors", ".parquet", ".onnx")
_HEX = set("0123456789abcdef")

Manifest = dict[str, Any]


def full_manifest(name: str, given: Mapping[str, Any], folder: Path) -> Manifest:
    """The caller's values, what identifies the bundle, and a digest of every file in ``folder``."""
    files = {
        path.name: {"sha256": file_digest(path), "bytes": path.stat().st_size}
        for path in sorted(folder.iterdir())
    }
    manifest: Manifest = {
        "format_version": FORMAT_VERSION,
        "version": f"{name}-{_digest(json_bytes(files))[:8]}",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "git_commit": _git_commit(),
        **given,
        "files": files,
    }
    return {**manifest, _SELF_DIGEST: _digest(json_bytes(manifest))}


def read_manifest(path: Path) -> Manifest:
    """The manifest of the bundle in ``path``, itself checked, the other files not.

    Names in it are plain names: of files within the folder, and of the data set, which gets another
    one where its own is none.

    Raises:
        InputError: when it is missing, damaged, of another format, or names what it must not.
    """
    expected, file = f"a bundle in {path}", path / MANIFEST_FILE
    if not file.is_file():
        found = f"no {MANIFEST_FILE} in it" if path.is_dir() else "no such folder"
        others = [str(other) for other in list_bundles(path.parent)]
        hint = f", or set bundle= to one of {', '.join(others)}" if others else ""
        raise InputError(expected, found, TRAIN + hint)
    again = f"restore {file}, or {TRAIN}"
    changed = f"a {MANIFEST_FILE} that was changed after it was written"
    content = read_bounded(file, _MAX_BYTES, again)
    try:
        manifest = parse_json(content)
    except ValueError as error:
        raise InputError(expected, f"{MANIFEST_FILE} that is no JSON ({error})", again) from error
    if not isinstance(manifest, dict):
        raise InputError(expected, changed, again)
    version = manifest.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:
        age, other = ("newer", "update the code") if version > FORMAT_VERSION else ("older", "")
        raise InputError(
            f"bundle format {FORMAT_VERSION} in {path}",
            f"format {shown(version)}, written by {age} code",
            " or ".join(filter(None, (other, TRAIN))),
        )
    digest = manifest.pop(_SELF_DIGEST, None)
    try:
        intact = digest == _digest(json_bytes(manifest))
    except ValueError:  # a number beyond floats, or half of a surrogate pair
        intact = False
    if not intact:
        raise InputError(expected, changed, again)
    for what, found in _misnamed(manifest):
        raise InputError(f"{expected} with {what}", found, again)
    if "dataset" in manifest:  # the event store's file is called after it
        manifest["dataset"] = plain_name(manifest["dataset"])
    return manifest


def _misnamed(manifest: Manifest) -> list[tuple[str, str]]:
    """What is wrong with the names and the files of a manifest: expected and found, in words."""
    wrong = []
    version = manifest.get("version")
    if not isinstance(version, str) or not version.isprintable() or len(version) > 300:
        wrong.append(("a version of one line", shown(version)))
    files = manifest.get("files")
    if not isinstance(files, dict) or not 0 < len(files) <= _MAX_FILES:
        return [*wrong, (f"1 to {_MAX_FILES} files by name", shown(files))]
    if INDEX_FILE not in files:
        wrong.append((f"{INDEX_FILE} among its files", "none"))
    own = f"files of its own: {INDEX_FILE}, *{', *'.join(_SUFFIXES)}"
    for name, written in files.items():
        if not is_plain_name(name) or not (name == INDEX_FILE or name.endswith(_SUFFIXES)):
            wrong.append((own, shown(name)))
        elif not _is_digest(written):
            wrong.append((f"size and SHA-256 of {name}", shown(written)))
    return wrong


def _is_digest(written: object) -> bool:
    if not isinstance(written, dict):
        return False
    size, digest = written.get("bytes"), written.get("sha256")
    is_hex = isinstance(digest, str) and len(digest) == 64 and set(digest) <= _HEX
    return is_hex and type(size) is int and size >= 0


def list_bundles(root: Path) -> list[Path]:
    """The complete bundles directly under ``root``, oldest first; ``latest`` is not one of them."""
    found = []
    for manifest in root.glob(f"[!.]*/{MANIFEST_FILE}"):
        try:
            written = manifest.stat().st_mtime_ns
        except OSError:  # removed or replaced since it was listed
            continue
        if not manifest.parent.is_symlink():
            found.append((written, manifest.parent))
    return [path for _, path in sorted(found)]


def json_bytes(value: Mapping[str, Any]) -> bytes:
    """As a manifest is written.

    Raises:
        ValueError: when a value is no JSON (NaN included).
    """
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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
