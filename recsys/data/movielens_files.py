"""Where the files of MovieLens-100K come from: a folder, a zip read in place, or GroupLens."""

import hashlib
import http.client
import logging
import urllib.request
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from recsys.errors import InputError

URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
"""Of the archive as GroupLens serves it (MD5 0e33842e24a9c977be4e0107933c0723, as published)."""

TIMEOUT_SECONDS = 20.0
MAX_BYTES = 50_000_000
MAX_FILE_BYTES = 20_000_000
"""Of an archive, and of each file in it: ten times what the data set has."""
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
REQUIRED = ("u.data", "u.item", "u.user", "u.genre")

logger = logging.getLogger(__name__)


class MovielensFiles:
    """The text files of the data set, by name, from a folder or from the members of a zip.

    Raises:
        InputError: when a required file is missing, or the zip can't be read.
    """

    def __init__(self, origin: Path) -> None:
        self.origin = origin
        self._lines: dict[str, list[str]] = {}
        self._members: dict[str, str] = {}
        if origin.is_dir():
            inner = origin / "ml-100k"
            root = inner if (inner / "u.data").exists() else origin
            self._members = {p.name: str(p) for p in root.glob("u*") if p.is_file()}
        else:
            if not origin.is_file() or origin.stat().st_size > MAX_BYTES:
                raise self._unreadable(f"no file, or one of more than {MAX_BYTES:,} bytes")
            try:
                with zipfile.ZipFile(origin) as archive:
                    names = [PurePosixPath(name) for name in archive.namelist()]
            except _ZIP_ERRORS as error:
                raise self._unreadable(str(error)) from error
            roots = [name.parent for name in names if name.name == "u.data"]
            if roots:
                self._members = {n.name: str(n) for n in names if n.parent == roots[0]}
        missing = [name for name in REQUIRED if name not in self._members]
        if missing:
            raise InputError(
                f"{', '.join(REQUIRED)} in {origin}",
                f"no {', '.join(missing)}",
                "point it at the unpacked folder ml-100k or at ml-100k.zip, or use data=sample",
            )

    def has(self, name: str) -> bool:
        return name in self._members

    def path(self, name: str) -> str:
        """The file as an error message names it."""
        return str(self.origin / name) if self.origin.is_dir() else f"{self.origin}:{name}"

    def lines(self, name: str) -> list[str]:
        """The lines of a file without their ends; the files are latin-1."""
        if name not in self._lines:
            # splitlines() would also break at the control characters that latin-1 has at 0x85.
            text = self._read(name).decode("latin-1").replace("\r\n", "\n")
            self._lines[name] = text.removesuffix("\n").split("\n") if text else []
        return self._lines[name]

    def quote(self, name: str, row: int) -> str:
        """Row ``row`` (from 0) with its file and line number, for an error message."""
        line = self.lines(name)[row]
        shown = line if len(line) <= 80 else line[:77] + "..."
        return f"{self.path(name)} line {row + 1:,}: {shown!r}"

    def _read(self, name: str) -> bytes:
        member = self._members[name]
        try:
            if self.origin.is_dir():
                with Path(member).open("rb") as file:
                    content = file.read(MAX_FILE_BYTES + 1)
            else:
                with zipfile.ZipFile(self.origin) as archive:
                    info = archive.getinfo(member)
                    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        # Others may ask for gigabytes before they unpack a byte.
                        raise zipfile.BadZipFile("packed by another method than deflate")
                    # Unpacked no further than that, whatever size the archive claims.
                    with archive.open(info) as file:
                        content = file.read(MAX_FILE_BYTES + 1)
        except _ZIP_ERRORS as error:
            raise self._unreadable(f"{name}: {error}") from error
        if len(content) > MAX_FILE_BYTES:
            raise self._unreadable(f"{name} of more than {MAX_FILE_BYTES:,} bytes")
        return content

    def _unreadable(self, reason: str) -> InputError:
        return InputError(
            f"MovieLens-100K, as a zip or a folder, at {self.origin}",
            reason,
            "get ml-100k.zip again, or use data=sample",
        )


def open_files(folder: Path, archive: Path | None, download: bool) -> MovielensFiles:
    """The first of: ``folder``, ``archive``, an earlier download, a new download.

    Raises:
        InputError: when ``archive`` is given but missing, or nothing can be had.
    """
    if archive is not None and not archive.exists():
        raise InputError(
            "MOVIELENS_ARCHIVE (data.archive) to name a zip or a folder",
            f"nothing at {archive}",
            "correct it, or unset it to use data/ml-100k or the download",
        )
    downloaded = folder.with_name(folder.name + ".zip")
    for origin in (folder, archive, downloaded):
        # An empty folder, as a bare mount leaves it, is nothing.
        if origin is not None and (any(origin.iterdir()) if origin.is_dir() else origin.exists()):
            logger.info("MovieLens-100K from %s", origin)
            return MovielensFiles(origin)
    if not download:
        raise _not_available(folder, "none of these, and data.download=false")
    logger.info("MovieLens-100K from %s", URL)
    fetch(URL, downloaded, SHA256, folder)
    return MovielensFiles(downloaded)


def fetch(url: str, target: Path, sha256: str, folder: Path) -> None:
    """Download ``url`` to ``target`` with a progress bar; the file appears only when it is whole.

    Raises:
        InputError: when the server can't be reached, or the checksum differs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".part")
    digest = hashlib.sha256()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    console = Console(stderr=True)
    try:
        with (
            urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response,
            partial.open("wb") as out,
            Progress(
                *columns, TransferSpeedColumn(), console=console, disable=not console.is_terminal
            ) as bar,
        ):
            length = response.headers.get("Content-Length")
            task = bar.add_task("ml-100k.zip", total=int(length) if length else None)
            size = 0
            while chunk := response.read(1 << 16):
                size += len(chunk)
                if size > MAX_BYTES:
                    raise _not_available(folder, f"more than {MAX_BYTES:,} bytes at {url}")
                digest.update(chunk)
                out.write(chunk)
                bar.update(task, advance=len(chunk))
        if digest.hexdigest() != sha256:
            raise InputError(
                f"SHA-256 {sha256} of {url}",
                digest.hexdigest(),
                "the download is incomplete or altered: try again, "
                f"put the data set into {folder}, or use data=sample",
            )
        partial.replace(target)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        raise _not_available(folder, f"none of these, and {url} failed: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _not_available(folder: Path, found: str) -> InputError:
    return InputError(
        f"MovieLens-100K in {folder}, in MOVIELENS_ARCHIVE (data.archive), or by download",
        found,
        f"put the files into {folder}, or set MOVIELENS_ARCHIVE to ml-100k.zip or to its folder, "
        "or use data=sample",
    )
