"""Errors of all packages: what each says of itself, and the code by which it is known."""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pf_stream

ROOT = Path(pf_stream.__file__).parent
KNOWN = ("Exception", "BaseException")


def errors() -> Iterator[ast.ClassDef]:
    """Classes of errors, wherever they are defined."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                if any(base in KNOWN or base.endswith("Error") for base in bases):
                    yield node


def code_of(error: ast.ClassDef) -> str | None:
    """The code that a class gives itself."""
    for node in error.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="code")], value=ast.Constant(value=str(code))):
                return code
            case _:
                pass
    return None


def test_each_says_when_it_is_raised() -> None:
    silent = [error.name for error in errors() if not (ast.get_docstring(error) or "").startswith("Raised ")]
    assert silent == []


def test_a_code_is_of_one_error() -> None:
    """Policy reads codes, and never the text."""
    found = sorted(code for error in errors() if (code := code_of(error)) is not None)
    assert len(found) > 50
    assert [one for one, other in pairwise(found) if one == other] == []
