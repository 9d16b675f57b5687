"""Tables that are written a part at a time, in the format that the file's name ends in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIXES = (".parquet", ".csv", ".jsonl")

Write = Callable[["pa.Table"], None]


def check_suffix(output: Path) -> str:
    """The ending of a file's name in lower case.

    Raises:
        InputError: when no format goes by it.
    """
    suffix = output.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            f"an output that ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}",
            f"{output.name}",
            f"set output={output.stem or 'recs'}.parquet",
        )
    return suffix


@contextmanager
def table_writer(output: Path, schema: "pa.Schema") -> Iterator[Write]:
    """A function that adds rows; the file appears under its name when it is complete.

    Parquet has a group of rows for each part, CSV (UTF-8, with a header) and JSON lines a line for
    each row.

    Raises:
        InputError: when the output is a folder, or of no known format.
    """
    if output.is_dir():
        raise InputError(
            "a file to write", f"the folder {output}", f"set output={output}/recs.parquet"
        )
    opened = _FORMATS[check_suffix(output)]
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.partial")
    try:
        with opened(partial, schema) as write:
            yield write
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _parquet(path: Path, schema: "pa.Schema") -> Iterator[Write]:
    import pyarrow.parquet as pq

    with pq.ParquetWriter(path, schema) as writer:
        yield writer.write_table


@contextmanager
def _csv(path: Path, schema: "pa.Schema") -> Iterator[Write]:
    import pyarrow.csv as pa_csv

    with pa_csv.CSVWriter(path, schema) as writer:
        yield writer.write_table


@contextmanager
def _json_lines(path: Path, schema: "pa.Schema") -> Iterator[Write]:  # noqa: ARG001
    with path.open("w", encoding="utf-8") as file:

        def write(table: Any) -> None:
            frame = table.to_pandas()
            file.write(frame.to_json(orient="records", lines=True, force_ascii=False))

        yield write


_FORMATS = {".parquet": _parquet, ".csv": _csv, ".jsonl": _json_lines}
