"""Parquet tables of a bundle, bounded: a few bytes of it can stand for gigabytes of rows."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.errors import InputError

_FLOOR_BYTES = 64_000_000
_MAX_EXPANSION = 100
"""Tables of ids, titles and descriptions are two to twenty times as large in memory."""
_ROWS_PER_BATCH = 10_000


def read_table(file: Path, remedy: str) -> pd.DataFrame:
    """The table in a Parquet file.

    Raises:
        InputError: when it cannot be read, or is larger than ``_FLOOR_BYTES`` and more than
            ``_MAX_EXPANSION`` times as large in memory as in the file.
    """
    limit = _FLOOR_BYTES + _MAX_EXPANSION * file.stat().st_size
    try:
        size = _size_in_memory(file, limit)
        if size <= limit:
            return pd.read_parquet(file)
    # What pyarrow and pandas raise shares no base class but this one.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"a Parquet table in {file}", reason[:200], remedy) from error
    raise InputError(f"a table of at most {limit:,} bytes in {file}", f"{size:,} or more", remedy)


def _size_in_memory(file: Path, limit: int) -> int:
    """Bytes, counted without unpacking; once past the limit, no further."""
    with pq.ParquetFile(file) as parquet:
        metadata = parquet.metadata
        columns = [
            metadata.row_group(group).column(number)
            for group in range(metadata.num_row_groups)
            for number in range(metadata.num_columns)
        ]
    size: int = sum(max(column.total_uncompressed_size, column.num_values) for column in columns)
    if size > limit:
        return size
    # Texts stay numbers of a dictionary here: what repeats is unpacked by pandas alone.
    texts = [column.path_in_schema for column in columns if column.physical_type == "BYTE_ARRAY"]
    with pq.ParquetFile(file, read_dictionary=sorted(set(texts))) as parquet:
        size = 0
        for batch in parquet.iter_batches(_ROWS_PER_BATCH):
            size += sum(_unpacked(column) for column in batch.columns)
            if size > limit:
                break
    return size


def _unpacked(array: Any) -> int:
    kind, size = array.type, 0
    if pa.types.is_dictionary(kind):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        size = (pc.sum(lengths).as_py() or 0) + array.indices.nbytes
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        size = _unpacked(array.flatten()) + 8 * len(array)
    elif pa.types.is_struct(kind):
        for field in array.flatten():
            size += _unpacked(field)
    else:
        size = array.nbytes
    return size
