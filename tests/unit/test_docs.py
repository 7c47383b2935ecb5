"""The Python that the documents show runs as printed, and their YAML is what it says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

DOCS = Path(__file__).parents[2] / "docs"


def fences(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(fences("security.md", "python"))))
def test_security_md_runs_as_printed(number: int) -> None:
    # In a process of its own: names of capabilities have one meaning in each.
    block = fences("security.md", "python")[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_security_md_shows_yaml() -> None:
    (block,) = fences("security.md", "yaml")
    assert YAML(typ="safe").load(block)["reactors"][1]["as"] == "service"


@pytest.mark.parametrize("number", range(len(fences("backpressure.md", "python"))))
def test_backpressure_md_runs_as_printed(number: int) -> None:
    block = fences("backpressure.md", "python")[number]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
