"""Objects named ``module:name``, imported with a folder first on the path; what fails is told apart."""

import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from pf_stream.errors import DefinitionError
from pf_stream.model._names import nearest

__all__ = ["ImportFaults", "find", "import_from", "split"]

_reference = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)").fullmatch


class ImportFaults(Exception):  # noqa: N818 - it is turned into an error of whoever asked, who knows the file and line
    """Raised when a module or a name of it cannot be had; says why, in one text or several."""

    def __init__(self, *faults: str) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


def split(reference: str) -> tuple[str, str] | None:
    """Module and name of ``module:name``; None if it is not written so."""
    match = _reference(reference)
    return None if match is None else (match[1], match[2])


def import_from(module: str, folder: Path) -> ModuleType:
    """The module, looked for in *folder* first.

    Raises:
        ImportFaults: there is none, or its own code failed: the two are never mixed up.
    """
    with _first_on_path(folder):
        try:
            imported = importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is not None and f"{module}.".startswith(f"{error.name}."):
                raise ImportFaults(_not_found(module, error.name, folder)) from error
            raise ImportFaults(_failed(module, error)) from error
        except DefinitionError as error:
            raise ImportFaults(*(f"{error.subject}: {fault}" for fault in error.faults)) from error
        except (Exception, SystemExit) as error:  # user code may raise anything
            raise ImportFaults(_failed(module, error)) from error
    _check_origin(module, folder)
    return imported


def find(module: ModuleType, name: str, base: type) -> object:
    """The object called *name*, which is a *base*, or where that is a class to derive from, a subclass.

    Raises:
        ImportFaults: the module has no such thing; names the nearest one.
    """
    noun = "function" if base.__name__ == "Callable" else base.__name__
    missing = object()
    found = getattr(module, name, missing)
    if _is(found, base):
        return found
    known = [other for other, value in vars(module).items() if _is(value, base)]
    if found is missing:
        raise ImportFaults(f"module {module.__name__!r} has no {noun} {name!r}{nearest(name, known)}")
    raise ImportFaults(f"{module.__name__}:{name} is {_what(found)}, not {_a(noun)}{nearest(name, known)}")


def _is(value: object, base: type) -> bool:
    return isinstance(value, base) or (isinstance(value, type) and issubclass(value, base) and value is not base)


def _what(value: object) -> str:
    return f"the class {value.__qualname__}" if isinstance(value, type) else _a(type(value).__name__)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiouAEIOU' else 'a'} {noun}"


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(entry)


def _not_found(module: str, part: str, folder: Path) -> str:
    parent, _, leaf = part.rpartition(".")
    where = [str(folder)] if not parent else list(getattr(sys.modules.get(parent), "__path__", ()))
    near = nearest(leaf, (found.name for found in pkgutil.iter_modules(where)))
    within = f" (of {module!r})" if part != module else ""
    return f"there is no module {part!r}{within} in {folder}, nor is one installed{near}"


def _failed(module: str, error: BaseException) -> str:
    at = ""
    if isinstance(error, SyntaxError):
        at = f" at {error.filename}:{error.lineno}"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        for frame in reversed(frames):
            if not frame.filename.startswith("<frozen importlib") and frame.filename != importlib.__file__:
                at = f" at {frame.filename}:{frame.lineno}"
                break
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"module {module!r} was found, but importing it failed{at}: {type(error).__name__}: {text}"


def _check_origin(module: str, folder: Path) -> None:
    """What *folder* has under that name must be what was imported: another module may have had the name before."""
    top = module.partition(".")[0]
    here = PathFinder.find_spec(top, [str(folder)])
    got = getattr(sys.modules[top], "__file__", None)
    if here is None or here.origin is None:
        return
    if got is None or not Path(got).exists() or not Path(got).samefile(here.origin):
        raise ImportFaults(
            f"the name {top!r} belongs to {got or 'a built-in module'} already, so {here.origin} cannot be imported; rename it"
        )
