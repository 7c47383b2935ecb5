"""``pf keys``, as a person or a script meets it."""

import json
import stat
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from pf_stream.cli import keys
from pf_stream.security import SigningKey, TrustRoots


def pf(*args: object) -> Result:
    return CliRunner().invoke(keys.app, [str(arg) for arg in args])


def test_generate_writes_a_private_and_a_public_file(tmp_path: Path) -> None:
    done = pf("generate", "--kid", 7, "--out", tmp_path / "issuer.key", "-o", "json")
    assert done.exit_code == 0
    key = SigningKey.load(tmp_path / "issuer.key")
    assert json.loads(done.stdout) == {
        "kid": 7,
        "public_key": key.public,
        "private_file": str(tmp_path / "issuer.key"),
        "public_file": str(tmp_path / "issuer.key.pub"),
    }
    assert stat.S_IMODE((tmp_path / "issuer.key").stat().st_mode) == 0o600
    assert TrustRoots.load(tmp_path / "issuer.key.pub") == {7: key.public}
    assert "secret" in done.stderr


def test_generate_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pf("generate").exit_code == 0
    assert SigningKey.load("issuer.key").kid == next(iter(TrustRoots.load("issuer.key.pub")))


def test_generate_overwrites_only_when_told(tmp_path: Path) -> None:
    out = tmp_path / "k"
    assert pf("generate", "--kid", 1, "--out", out).exit_code == 0
    again = pf("generate", "--kid", 2, "--out", out)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "error (bad_key_file)" in again.stderr
    assert "is there already" in again.stderr
    assert SigningKey.load(out).kid == 1
    assert pf("generate", "--kid", 2, "--out", out, "--overwrite").exit_code == 0
    assert SigningKey.load(out).kid == 2


@pytest.mark.parametrize("kid", [-1, 2**32, "seven"])
def test_a_kid_is_a_number_that_fits(kid: object, tmp_path: Path) -> None:
    assert pf("generate", "--kid", kid, "--out", tmp_path / "k").exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_show_any_file_of_keys(tmp_path: Path) -> None:
    key = SigningKey.generate(7)
    key.save(tmp_path / "k")
    for name in ("k", "k.pub"):
        done = pf("show", tmp_path / name, "-o", "json")
        assert json.loads(done.stdout) == [{"kid": 7, "public_key": key.public}]
    assert YAML(typ="safe").load(pf("show", tmp_path / "k", "-o", "yaml").stdout) == [
        {"kid": 7, "public_key": key.public}
    ]
    assert key.public in pf("show", tmp_path / "k").stdout


def test_show_says_what_is_wrong(tmp_path: Path) -> None:
    assert pf("show", tmp_path / "none").exit_code == 3
    (tmp_path / "x").write_text("hello\n")
    done = pf("show", tmp_path / "x")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "line 1 is not a public key" in done.stderr


def test_the_private_key_is_never_shown(tmp_path: Path) -> None:
    out = tmp_path / "k"
    said = [pf("generate", "--out", out)]
    secret = out.read_text().split("/")[1].strip()
    said += [pf("show", out, "-o", form) for form in ("table", "json", "yaml")]
    out.chmod(0o644)
    said += [pf("show", out), pf("generate", "--out", out)]
    assert len(secret) == 64
    assert not [one for one in said if secret in one.stdout + one.stderr]
    assert [one.exit_code for one in said] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize("command", ["generate", "show"])
def test_help_has_an_example(command: str) -> None:
    assert f"pf keys {command}" in pf(command, "--help").stdout
