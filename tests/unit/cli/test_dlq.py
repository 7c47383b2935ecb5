"""Arguments of ``pf dlq replay`` that mean nothing: said before anything is asked of Kafka."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pf_stream.cli import _build


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a TOPIC of dead letters, or a topology"),
        (["-t", "flights:flights", "--offset", "0:1"], "positions are of one topic"),
        (["a.dlq", "--offset", "3"], "'3' is no position; write PARTITION:OFFSET"),
        (["a.dlq", "--offset", "-1:3"], "'-1:3' is no position"),
        (["a.dlq", "--since", "yesterday"], "'yesterday' is no time; write it as 30m, 2h or 1d (ago)"),
        (["a.dlq", "--since", "2026-01-01T00:00:00"], "is no time"),
    ],
)
def test_usage(arguments: list[str], said: str, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.write_text("token")
    environment = {"COLUMNS": "300", "NO_COLOR": "1", "PF_TOPOLOGY": ""}
    done = CliRunner().invoke(_build(), ["dlq", "replay", "--context", str(context), *arguments], env=environment)
    assert done.exit_code == 2, done.output
    assert said in done.stderr


def test_without_a_context() -> None:
    done = CliRunner().invoke(_build(), ["dlq", "replay", "a.dlq"], env={"COLUMNS": "300", "PF_CONTEXT": ""})
    assert done.exit_code == 2
    assert "--context" in done.stderr
