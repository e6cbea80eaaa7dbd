"""The command that writes the audit log to a file, of any length in the same memory."""

import contextlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Protocol

import click
from attrs import asdict, fields

from gateway.cli.audit import as_object, selecting, selection_of
from gateway.cli.output import csv_of, progress, show_json
from gateway.cli.stores import Stores, with_stores
from gateway.model import AuditRow

_FORMATS: Final = ("jsonl", "csv", "parquet")
_COLUMNS: Final = ("request_id", "received_at", "tenant", *(field.name for field in fields(AuditRow)[2:]))


class Writer(Protocol):
    """Takes rows, a page at a time, and ends."""

    def write(self, rows: Sequence[AuditRow]) -> None: ...

    def close(self) -> None: ...


@click.command()
@selecting
@click.option(
    "--format", "form", type=click.Choice(_FORMATS), default="jsonl", show_default=True, help="How to write."
)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to: a file that is there when all is written, for its owner alone. Without: standard output.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Tell programs how many rows were written, with --output."
)
def export_audit(*, form: str, output: Path | None, as_json: bool, **asked: Any) -> None:
    """Write audit rows as JSON lines, CSV or Parquet, from the first to the last.

    Reads a page at a time, so that memory does not grow with what is written; gateways may run meanwhile. In
    CSV a text that a spreadsheet would run as a formula has an apostrophe before it. Parquet needs pyarrow:
    pip install 'neuronetz-gateway[parquet]'.

    \b
    Examples:
      neuronetz-gateway export-audit --since 2026-11-01 --until 2026-12-01 --format csv --output november.csv
      neuronetz-gateway export-audit --tenant acme --format parquet --output acme.parquet
    """
    if output is None and form == "parquet":
        raise click.UsageError("Parquet is no text: say where to with --output.")
    if output is None and as_json:
        raise click.UsageError("--json tells of a file: give --output with it.")
    new_writer = _writer_of(form)
    with _opened(output) as file:
        count = with_stores(lambda stores: _export(stores, asked, lambda names: new_writer(file, names)))
    if as_json:
        show_json({"rows": count, "format": form, "output": str(output)})
    elif output is not None:
        click.echo(f"Wrote {count:,} rows to {output}.")


async def _export(
    stores: Stores, asked: dict[str, Any], new_writer: Callable[[dict[str, str]], Writer]
) -> int:
    selection = await selection_of(stores, asked)
    names = {tenant.id: tenant.name for tenant in await stores.tenants.all()}
    total = await stores.audit.count(selection) if sys.stderr.isatty() else 0
    writer, count = new_writer(names), 0
    with progress("Writing the audit log", total) as advance:
        async for page in stores.audit.pages(selection):
            writer.write(page)
            count += len(page)
            advance(len(page))
    writer.close()
    return count


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    """Standard output; or a file beside the named one, which takes its place once all is written."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        # Mode 0600, by tempfile.
        with tempfile.NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}.", delete=False) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(output)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise click.ClickException(f"{output} can't be written: {error.strerror}.") from error


def _writer_of(form: str) -> Callable[[IO[bytes], dict[str, str]], Writer]:
    match form:
        case "jsonl":
            return _JsonLines
        case "csv":
            return _Csv
        case _:
            try:
                arrow = importlib.import_module("pyarrow")
                parquet = importlib.import_module("pyarrow.parquet")
            except ImportError as error:
                raise click.ClickException(
                    "Parquet needs pyarrow, which is not here: pip install 'neuronetz-gateway[parquet]'; "
                    "jsonl and csv need nothing more."
                ) from error
            return lambda file, names: _Parquet(file, names, arrow, parquet)


class _JsonLines:
    def __init__(self, file: IO[bytes], names: dict[str, str]) -> None:
        self._file, self._names = file, names

    def write(self, rows: Sequence[AuditRow]) -> None:
        lines = (json.dumps(as_object(row, self._names), separators=(",", ":")) for row in rows)
        self._file.write("".join(f"{line}\n" for line in lines).encode())

    def close(self) -> None:
        pass


class _Csv:
    def __init__(self, file: IO[bytes], names: dict[str, str]) -> None:
        self._file, self._names = file, names
        file.write((",".join(_COLUMNS) + "\n").encode())

    def write(self, rows: Sequence[AuditRow]) -> None:
        cells = (as_object(row, self._names) for row in rows)
        self._file.write(csv_of([[one[name] for name in _COLUMNS] for one in cells]).encode())

    def close(self) -> None:
        pass


class _Parquet:
    """A row group a page: memory holds one of them."""

    def __init__(self, file: IO[bytes], names: dict[str, str], arrow: Any, parquet: Any) -> None:
        self._names, self._arrow = names, arrow
        kinds = {str: arrow.string(), int: arrow.int64(), float: arrow.float64(), bool: arrow.bool_()}
        of_fields = {field.name: kinds[_kind_of(field.type)] for field in fields(AuditRow)}
        of_fields |= {"tenant": arrow.string(), "received_at": arrow.timestamp("us", tz="UTC")}
        self._schema = arrow.schema([(name, of_fields[name]) for name in _COLUMNS])
        self._writer = parquet.ParquetWriter(file, self._schema)

    def write(self, rows: Sequence[AuditRow]) -> None:
        values = [
            {
                **asdict(row, recurse=False),
                "received_at": row.received_at_us,
                "tenant": self._names.get(row.tenant_id or ""),
            }
            for row in rows
        ]
        columns = {
            name: self._arrow.array([one[name] for one in values], type=self._schema.field(name).type)
            for name in _COLUMNS
        }
        self._writer.write_table(self._arrow.table(columns, schema=self._schema))

    def close(self) -> None:
        self._writer.close()


def _kind_of(annotation: Any) -> type:
    """`str` of `str | None`."""
    (kind,) = {*getattr(annotation, "__args__", (annotation,))} - {type(None)}
    return kind  # type: ignore[no-any-return]
