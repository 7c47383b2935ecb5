"""What is public is said, and only that: a new name is a visible line in a diff."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import pf_stream

ROOT = Path(pf_stream.__file__).parent
MODULES = sorted(
    path
    for path in ROOT.rglob("*.py")
    # What a command's module defines is the command.
    if path.parent != ROOT / "cli"
    and not any(part.startswith("_") for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__")
)

NAMES = [
    "PUBLIC",
    "Buffer",
    "Caller",
    "Cancel",
    "Capability",
    "Context",
    "DefinitionError",
    "Delivered",
    "Effects",
    "Emit",
    "Entries",
    "EventTime",
    "Forget",
    "GlobalTable",
    "Intent",
    "Key",
    "MapState",
    "PFError",
    "Part",
    "Reactor",
    "Reply",
    "RetryInPlace",
    "RetryLater",
    "Schedule",
    "Service",
    "Sink",
    "State",
    "Tally",
    "Topology",
    "all_of",
    "any_of",
    "caller",
    "computed",
    "during",
    "on",
    "operation",
    "rule",
    "upcast",
    "upgrade",
]
"""What the author of a reactor types."""


def test_the_names_that_a_user_needs() -> None:
    assert sorted(pf_stream.__all__) == sorted(NAMES)
    assert pf_stream.__all__ == NAMES


def declared(tree: ast.Module) -> list[str] | None:
    """The value of ``__all__``."""
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value):
                names: list[str] = ast.literal_eval(value)
                return names
            case _:
                pass
    return None


def defined(body: list[ast.stmt]) -> set[str]:
    """Names that a module binds when it is imported."""
    names: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names.update(alias.asname or alias.name.partition(".")[0] for alias in aliases)
            case ast.Assign(targets=targets):
                names.update(part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.If(body=inner, orelse=other):
                names |= defined(inner) | defined(other)
            case ast.Try(body=inner, handlers=handlers, orelse=other):
                names |= defined(inner) | defined(other)
                for handler in handlers:
                    names |= defined(handler.body)
            case _:
                pass
    return names


@pytest.mark.slow
def test_every_public_module_says_what_is_public_in_it() -> None:
    for path in MODULES:
        tree = ast.parse(path.read_text())
        names = declared(tree)
        if names is None:
            assert path.name == "__main__.py" or not defined(tree.body), f"{path} has names, and no __all__"
            continue
        assert len(names) == len(set(names)), path
        assert set(names) <= defined(tree.body), f"__all__ of {path} lists what the module lacks"
        assert not [name for name in names if name.startswith("_") and name != "__version__"], path


@pytest.mark.slow
@pytest.mark.parametrize("module", ["pf_stream", "pf_stream.testing"])
def test_importing_it_loads_nothing_heavy(module: str) -> None:
    """Neither a Kafka client, nor Faust, nor the command line: a reactor's tests start at once."""
    heavy = {"faust", "mode", "aiokafka", "confluent_kafka", "typer", "rich", "click"}
    program = f"import sys, {module}; print(sorted({heavy!r} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
