"""Signing keys, their files, and the roots of trust."""

import copy
import os
import pickle
import stat
import traceback
from pathlib import Path

import pytest

from pf_stream.errors import NotFoundError
from pf_stream.security import KeyFileError, SigningKey, TrustRoots, public_keys, write_private


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    SigningKey.generate(7).save(tmp_path / "k")
    return tmp_path / "k"


class TestSigningKey:
    def test_shows_only_its_public_half(self) -> None:
        key = SigningKey.generate(3)
        secret = repr(key.private).partition("/")[2]
        assert key.public.startswith("ed25519/")
        assert secret
        assert secret not in repr(key) + str(key) + f"{key!r:>200}" + repr(key.public)
        assert repr(key) == f"<SigningKey kid=3 public={key.public}>"

    @pytest.mark.parametrize("leak", [pickle.dumps, copy.copy, copy.deepcopy])
    def test_is_not_pickled(self, leak: object) -> None:
        with pytest.raises(TypeError, match=r"save\(\) it to a file"):
            leak(SigningKey.generate(1))  # type: ignore[operator]

    def test_a_kid_of_its_own_is_a_fingerprint(self) -> None:
        kids = {SigningKey.generate().kid for _ in range(20)}
        assert len(kids) == 20
        assert all(0 <= kid < 2**31 for kid in kids)

    @pytest.mark.parametrize("kid", [-1, 2**32])
    def test_a_kid_is_a_uint32(self, kid: int) -> None:
        with pytest.raises(KeyFileError, match="is not between 0 and 4294967295"):
            SigningKey.generate(kid)


class TestSaveAndLoad:
    def test_round_trip(self, tmp_path: Path) -> None:
        key = SigningKey.generate(7)
        key.save(tmp_path / "k")
        assert repr(SigningKey.load(tmp_path / "k")) == repr(key)
        assert (
            SigningKey.load(tmp_path / "k").private == key.private or repr(key.private) in (tmp_path / "k").read_text()
        )
        assert TrustRoots.load(tmp_path / "k.pub") == {7: key.public}
        assert sorted(path.name for path in tmp_path.iterdir()) == ["k", "k.pub"]

    def test_is_readable_by_its_owner_alone_from_the_first_moment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[tuple[str, int]] = []
        real = os.open

        def spy(path: str, flags: int, mode: int = 0o777) -> int:
            opened.append((os.fspath(path), mode))
            return real(path, flags, mode)

        monkeypatch.setattr(os, "open", spy)
        before = os.umask(0)
        try:
            SigningKey.generate(7).save(tmp_path / "k")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "k.pub").stat().st_mode) == 0o644
        assert [mode for path, mode in opened if "k.pub" not in path] == [0o600]

    @pytest.mark.parametrize("there", ["k", "k.pub"])
    def test_does_not_overwrite_unless_told(self, tmp_path: Path, there: str) -> None:
        (tmp_path / there).write_text("precious")
        with pytest.raises(KeyFileError, match="is there already"):
            SigningKey.generate(7).save(tmp_path / "k")
        assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(there, "precious")]
        SigningKey.generate(7).save(tmp_path / "k", overwrite=True)
        assert SigningKey.load(tmp_path / "k").kid == 7

    def test_does_not_follow_a_link_that_waits_there(self, tmp_path: Path) -> None:
        (tmp_path / "k").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(KeyFileError, match="is there already"):
            SigningKey.generate(7).save(tmp_path / "k")
        SigningKey.generate(7).save(tmp_path / "k", overwrite=True)
        assert not (tmp_path / "elsewhere").exists()

    def test_a_race_is_lost_politely(self, tmp_path: Path) -> None:
        (tmp_path / "k").write_text("precious")
        with pytest.raises(KeyFileError, match="is there already"):
            write_private(tmp_path / "k", "text", overwrite=False)
        assert (tmp_path / "k").read_text() == "precious"

    def test_needs_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(KeyFileError, match="cannot be written: No such file"):
            SigningKey.generate(7).save(tmp_path / "no" / "k")

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
    def test_a_key_that_others_may_read_is_refused(self, saved: Path, mode: int) -> None:
        saved.chmod(mode)
        with pytest.raises(KeyFileError, match=f"others may read it .mode {mode:04o}.*chmod 600"):
            SigningKey.load(saved)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError, match="there is no such file"):
            SigningKey.load(tmp_path / "k")
        with pytest.raises(KeyFileError, match="cannot be read: Is a directory"):
            SigningKey.load(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "\n",
            "7\n",
            "7 ed25519-private/00\n",
            f"ed25519-private/{'0' * 64}\n",
            f"7 ed25519-private/{'0' * 63}g\n",
            "\xff",
            f"7 ed25519-private/{'1' * 64}\n8 ed25519-private/{'2' * 64}\n",
            f"9999999999 ed25519-private/{'1' * 64}\n",
        ],
    )
    def test_what_is_no_key_is_not_repeated(self, tmp_path: Path, content: str) -> None:
        write_private(tmp_path / "k", "", overwrite=False)
        (tmp_path / "k").write_bytes(content.encode("latin-1"))
        with pytest.raises(KeyFileError) as caught:
            SigningKey.load(tmp_path / "k")
        assert caught.value.code == "bad_key_file"
        told = "".join(traceback.format_exception(caught.value))
        assert "1" * 64 not in told
        assert "0" * 63 not in told

    def test_a_public_key_cannot_sign(self, saved: Path) -> None:
        public = saved.with_name("k.pub")
        public.chmod(0o600)
        with pytest.raises(KeyFileError, match="name the private file"):
            SigningKey.load(public)


class TestTrustRoots:
    def test_of_several_files(self, tmp_path: Path) -> None:
        keys = [SigningKey.generate(kid) for kid in (1, 2, 3)]
        for key in keys:
            key.save(tmp_path / str(key.kid))
        (tmp_path / "both").write_text(
            "# who may issue\n\n" + (tmp_path / "2.pub").read_text() + f"  3   {keys[2].public}  # until May\r\n"
        )
        roots = TrustRoots.load([tmp_path / "1.pub", str(tmp_path / "both"), tmp_path / "3.pub"])
        assert roots == {key.kid: key.public for key in keys} == TrustRoots.of(*keys)
        assert repr(roots) == "<TrustRoots kids=[1, 2, 3]>"
        assert (roots.key(4), roots.key(None)) == (None, None)
        assert repr(roots.key(2)) == keys[1].public

    def test_one_kid_has_one_key(self, tmp_path: Path) -> None:
        one, two = SigningKey.generate(1), SigningKey.generate(1)
        with pytest.raises(KeyFileError, match="kid 1 has two different keys"):
            TrustRoots.of(one, two)
        (tmp_path / "roots").write_text(f"1 {one.public}\n1 {two.public}\n")
        with pytest.raises(KeyFileError, match="kid 1 has two different keys"):
            TrustRoots.load(tmp_path / "roots")

    def test_one_key_has_one_kid(self) -> None:
        """The kid is not signed: a token could be sent under either, and miss every cache."""
        key = SigningKey.generate(1)
        with pytest.raises(KeyFileError, match="kids 1 and 2 have the same key"):
            TrustRoots({1: key.public, 2: key.public})
        assert TrustRoots.of(key, key) == {1: key.public}

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "there is no public key to trust"),
            ("# nothing\n", "there is no public key to trust"),
            ("x\n", "line 1 is not a public key"),
            ("\n1 ed25519/00\n", "line 2 is not a public key"),
            (f"1 secp256r1/{'0' * 66}\n", "line 1 is not a public key"),
            (f"1 ed25519/{'0' * 64} trusted\n", "line 1 is not a public key"),
            (f"-1 ed25519/{'0' * 64}\n", "line 1 is not a public key"),
            (f"4294967296 ed25519/{'0' * 64}\n", "is not between 0 and 4294967295"),
            (f"1 ed25519/02{'0' * 62}\n", "kid 1 is not a point of the curve"),
            (f"1 ed25519-private/{'0' * 64}\n", "line 1 is a private key, which verifies nothing"),
        ],
    )
    def test_every_line_is_a_key(self, tmp_path: Path, text: str, fault: str) -> None:
        (tmp_path / "roots").write_text(text)
        with pytest.raises(KeyFileError, match=fault) as caught:
            TrustRoots.load(tmp_path / "roots")
        assert "0" * 64 not in str(caught.value)

    def test_text_is_a_key(self) -> None:
        with pytest.raises(KeyFileError, match="is not 'ed25519/' and 64 hexadecimal digits"):
            TrustRoots({1: "ed25519/xyz"})

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(NotFoundError):
            TrustRoots.load([tmp_path / "roots"])


def test_public_keys_of_any_file(saved: Path) -> None:
    assert public_keys(saved) == public_keys(saved.with_name("k.pub"))
    saved.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        public_keys(saved)
