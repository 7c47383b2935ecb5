"""The ``pf`` command: noun, verb.

Each noun is a module of this package with a typer app called ``app``. A few commands concern all nouns and stand alone: a
module with a function of its name. Modules import only what parsing needs;
Kafka clients, Faust and the user's code are imported inside the commands, so ``pf --help`` stays quick.
"""

import importlib
import sys

import typer

__all__ = ["main"]

NOUNS = {
    "dev": "A real Kafka for development, without Docker.",
    "keys": "Signing keys of contexts.",
    "context": "Contexts: signed tokens that say who may do what.",
    "topology": "Topology files: check and show them.",
    "topics": "Kafka topics of a topology.",
    "worker": "Run a topology.",
    "intent": "Send intents.",
    "state": "State of reactors.",
    "jobs": "Jobs: when they run, and what can be asked of them.",
    "timers": "Timers: what waits, and until when.",
    "offsets": "How far reactors have read, and moving that.",
    "dlq": "Dead letters: what was refused, and why.",
    "schema": "JSON Schemas of intents.",
    "registry": "Components that are running.",
}
ALONE = ("status", "doctor", "bench")


def _build() -> typer.Typer:
    root = typer.Typer(
        name="pf",
        help="pf_stream: stream processing of authorised intents over Kafka.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    for noun, text in NOUNS.items():
        module = importlib.import_module(f"pf_stream.cli.{noun}")
        root.add_typer(module.app, name=noun, help=text, no_args_is_help=True)
    for name in ALONE:
        module = importlib.import_module(f"pf_stream.cli.{name}")
        root.command(name=name, epilog=module.EPILOG)(getattr(module, name))
    return root


def main() -> None:
    """Entry point of the ``pf`` script."""
    # A worker or dev broker started with `python -m` finds the same program name in its usage line.
    sys.argv[0] = "pf"
    _build()()
