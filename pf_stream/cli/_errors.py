"""The only place where an error becomes an exit code."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from pf_stream.cli._output import note
from pf_stream.errors import DeniedError, NotFoundError, PFError, UnhealthyError

__all__ = ["EXIT_ERROR", "EXIT_NOT_FOUND", "EXIT_REFUSED", "EXIT_UNHEALTHY", "exit_on_error"]

EXIT_ERROR = 1
EXIT_NOT_FOUND = 3
EXIT_REFUSED = 4
EXIT_UNHEALTHY = 5

_EXITS = ((NotFoundError, EXIT_NOT_FOUND), (DeniedError, EXIT_REFUSED), (UnhealthyError, EXIT_UNHEALTHY))


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn a :class:`PFError` into one line on stderr and an exit code; anything else is a bug and keeps its traceback."""
    try:
        yield
    except PFError as error:
        note(f"[red]error[/red] ({error.code}): {{}}", error)
        raise typer.Exit(next((code for kind, code in _EXITS if isinstance(error, kind)), EXIT_ERROR)) from error
    except KeyboardInterrupt:
        note("interrupted")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # The reader of our output (head, less) left: nothing more to say, and Python must not try to at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(EXIT_ERROR) from None
