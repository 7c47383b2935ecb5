"""The Python that the documents show runs as printed, and their YAML is what it says."""

import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

DOCS = Path(__file__).parents[2] / "docs"


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(fences("security.md", "python"))))
def test_security_md_runs_as_printed(number: int) -> None:
    block = fences("security.md", "python")[number]
    names: dict[str, object] = {"__name__": f"security_md_{number}"}
    exec(compile(block, f"security.md[{number}]", "exec"), names)  # noqa: S102 - it is ours
    assert len(names) > 2


def test_security_md_shows_yaml() -> None:
    (block,) = fences("security.md", "yaml")
    assert YAML(typ="safe").load(block)["reactors"][1]["as"] == "service"
