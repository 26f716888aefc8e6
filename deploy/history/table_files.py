"""Figures as files for other programs: CSV, and Parquet where pyarrow is installed."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import NoneType, UnionType
from typing import IO, TYPE_CHECKING, Any, get_args

from deploy.errors import ConfigError
from deploy.files import replacing
from deploy.history.query import Row

if TYPE_CHECKING:
    import pyarrow

COLUMNS = tuple(name for name in Row.model_fields if name != "samples")
SAMPLES = "samples"

_BATCH = 5000


def write_csv(rows: Iterable[Row], stream: IO[str], *, samples: bool = False) -> int:
    """Write a header and a line for each figure; returns how many. Unknown numbers are empty.

    With ``samples`` the last column has the raw samples, a space between each two. A text that a
    spreadsheet would run as a formula gets an apostrophe in front: names come from devices, too.
    """
    names = [*COLUMNS, SAMPLES] if samples else list(COLUMNS)
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(names)
    count = 0
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in names])
        count += 1
    return count


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(repr(one) for one in value)
    if isinstance(value, str):
        return f"'{value}" if value[:1] in set("=+-@\t\r") else value
    return repr(value)


def write_csv_file(rows: Iterable[Row], path: Path, *, samples: bool = False) -> int:
    """As :func:`write_csv`, into a file that appears when it is whole."""
    with _replaced(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        return write_csv(rows, stream, samples=samples)


def write_parquet(rows: Iterable[Row], path: Path, *, samples: bool = False) -> int:
    """Write a Parquet file of the same columns; returns how many rows. Unknown numbers are null.

    Raises:
        ConfigError: pyarrow is not installed, or the file cannot be written.
    """
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ModuleNotFoundError:
        raise ConfigError(
            "pyarrow is not installed, and Parquet needs it",
            where=str(path),
            hint="Install it: pip install 'pocketship[parquet]'; CSV needs nothing.",
        ) from None
    schema = _schema(arrow, samples)
    count = 0
    with _replaced(path) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        for batch in _batches(rows):
            columns = {name: [getattr(row, name) for row in batch] for name in schema.names}
            writer.write_table(arrow.table(columns, schema=schema))
            count += len(batch)
    return count


def _schema(arrow: Any, samples: bool) -> pyarrow.Schema:
    kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64()}
    fields = [(name, kinds[_kind(Row.model_fields[name].annotation)]) for name in COLUMNS]
    if samples:
        fields.append((SAMPLES, arrow.list_(arrow.float64())))
    return arrow.schema(fields)


def _kind(annotation: Any) -> type:
    """The type of a column, without its None."""
    if isinstance(annotation, UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not NoneType)
    found: type = annotation
    return found


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


@contextlib.contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    try:
        with replacing(path) as temporary:
            yield temporary
    except OSError as error:
        raise ConfigError(
            f"cannot be written: {error.strerror or error}", where=str(path)
        ) from None
