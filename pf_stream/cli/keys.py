"""``pf keys``: the keys that sign contexts, and the public halves that workers trust."""

from pathlib import Path
from typing import Annotated

import typer

from pf_stream.cli._errors import exit_on_error
from pf_stream.cli._output import Output, OutputOption, note, show, show_rows

app = typer.Typer()


@app.command(
    epilog="Examples:\n\npf keys generate --out issuer.key\n\n"
    "pf keys generate --kid 7 --out issuer-7.key && cat *.key.pub > trust_roots"
)
def generate(
    kid: Annotated[
        int | None,
        typer.Option(min=0, max=2**32 - 1, help="Number that tokens name it by.", show_default="from the public key"),
    ] = None,
    out: Annotated[Path, typer.Option(help="File for the private key; the public one goes to FILE.pub.")] = Path(
        "issuer.key"
    ),
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the files if they exist. What the old key signed is lost.")
    ] = False,
    output: OutputOption = Output.table,
) -> None:
    """Make a signing key.

    The private file is readable by you alone. Workers need FILE.pub: name it under trust_roots.
    """
    with exit_on_error():
        from pf_stream.security.keys import SigningKey

        key = SigningKey.generate(kid)
        key.save(out, overwrite=overwrite)
        show({"kid": key.kid, "public_key": key.public, "private_file": str(out), "public_file": f"{out}.pub"}, output)
        note("keep {} secret: whoever has it can grant anything", out)


@app.command(
    name="show",
    epilog="Examples:\n\npf keys show issuer.key\n\npf keys show trust_roots -o json",
)
def show_keys(
    file: Annotated[
        Path, typer.Argument(help="A signing key, a public key, or a file of trust roots.", metavar="FILE")
    ],
    output: OutputOption = Output.table,
) -> None:
    """Show number and public key of each key in a file; never the private half."""
    with exit_on_error():
        from pf_stream.security.keys import public_keys

        rows = [{"kid": kid, "public_key": text} for kid, text in public_keys(file).items()]
        show_rows(rows, output, ["kid", "public_key"])
