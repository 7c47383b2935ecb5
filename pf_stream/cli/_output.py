"""How commands print: data on stdout as a table, JSON or YAML; messages on stderr."""

import enum
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

__all__ = ["Output", "OutputOption", "note", "show", "show_rows"]


class Output(enum.StrEnum):
    """Formats of ``-o``."""

    table = "table"
    json = "json"
    yaml = "yaml"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="Format of what is printed on stdout.")]


def note(message: str, *values: object) -> None:
    """Print a message for people on stderr; each ``{}`` is filled with a value, shown literally."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        message.format(*(escape(str(value)) for value in values))
    )


def show(data: Any, output: Output) -> None:
    """Print one object: its fields as a two-column table, or as JSON or YAML."""
    if output is Output.table:
        table = Table(show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        for key, value in data.items():
            table.add_row(_cell(str(key)), _cell(value))
        _console().print(table)
    else:
        _dump(data, output)


def show_rows(rows: Sequence[Mapping[str, Any]], output: Output, columns: Sequence[str]) -> None:
    """Print a list: one row each, the named columns in their order; JSON and YAML carry every key."""
    if output is Output.table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(_cell(row[column]) for column in columns))
        _console().print(table)
    else:
        _dump(list(rows), output)


def _console() -> Console:
    # A terminal wraps cells to its width; what is piped keeps a row in a line.
    return Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 4096)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        # What somebody sent must not drive the terminal of whoever looks at it.
        return escape("".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in value))
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return escape(", ".join(value))
    return escape(orjson.dumps(value).decode())


def _dump(data: Any, output: Output) -> None:
    if output is Output.json:
        sys.stdout.write(orjson.dumps(data, option=orjson.OPT_INDENT_2).decode() + "\n")
        return
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.representer.sort_base_mapping_type_on_output = False  # keys in the order in which the table shows them
    yaml.dump(data, sys.stdout)
