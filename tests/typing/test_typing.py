"""mypy, once over what it must accept and what it must refuse."""

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def test_it_accepts_the_good_and_refuses_each_marked_line_of_the_bad() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--no-pretty",
            "--no-error-summary",
            "--hide-error-context",
            HERE / "good.py",
            HERE / "bad.py",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stderr == ""
    found: dict[tuple[str, int], str] = {}
    for line in run.stdout.splitlines():
        match = re.fullmatch(r"(.+?):(\d+): error: (.*)", line)
        if match is not None:
            found.setdefault((Path(match[1]).name, int(match[2])), match[3])
    marked = {
        ("bad.py", number): message
        for number, line in enumerate((HERE / "bad.py").read_text().splitlines(), start=1)
        for message in re.findall(r"  # error: (.+)", line)
    }
    assert len(marked) > 20
    assert found.keys() == marked.keys(), run.stdout
    for at, message in marked.items():
        assert message in found[at], at
