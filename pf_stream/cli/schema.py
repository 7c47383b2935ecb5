"""``pf schema``: JSON Schemas of intents."""

from pathlib import Path
from typing import Annotated

import typer

from pf_stream.cli._errors import EXIT_ERROR, exit_on_error
from pf_stream.cli._options import TopologyArgument, load
from pf_stream.cli._output import Output, OutputOption, note, show_rows

app = typer.Typer()


@app.callback()
def _group() -> None:
    """Keep ``export`` a command of its own, since typer would merge a single one into the noun."""


@app.command(
    epilog="Examples:\n\npf schema export topologies/flights/topology.yaml\n\n"
    "pf schema export topologies/flights/topology.yaml --check"
)
def export(
    topology: TopologyArgument,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the files.", file_okay=False)] = Path(
        "schemas"
    ),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 if a file is not as it would be written.")
    ] = False,
    output: OutputOption = Output.table,
) -> None:
    """Write the JSON Schema (2020-12) of each intent type to NAME.vVERSION.json."""
    with exit_on_error():
        from pf_stream.topology.schemas import SchemaStatus, compare_schemas, json_schemas, write_schemas

        schemas = json_schemas(load(topology, None))
        files = compare_schemas(schemas, out) if check else write_schemas(schemas, out)
        differ = any(file.status is not SchemaStatus.same for file in files)
        rows = [
            {
                "file": str(file.path),
                "status": file.status.value if check or file.status is SchemaStatus.same else "written",
            }
            for file in files
        ]
        show_rows(rows, output, ("file", "status"))
        if check and differ:
            note("schemas differ from the code; write them with: pf schema export {} --out {}", topology, out)
            raise typer.Exit(EXIT_ERROR)
