"""Keys: with one a token is signed, with the other it is believed.

A key has a number, its *kid*, which every token names as Biscuit's ``rootKeyId``; so keys can be replaced while tokens of the
old one are still alive. Both files are one line of text, so that a shell can put them together::

    7 ed25519-private/9a3f...      the signing key, FILE; readable by its owner alone
    7 ed25519/83ec...              the public key, FILE.pub

A file of trust roots is any number of public lines, as ``cat issuer-a.pub issuer-b.pub > trust_roots`` makes it. Empty lines
and what follows a ``#`` are ignored. Everything else is refused with its line number.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, final

from biscuit_auth import KeyPair, PrivateKey, PublicKey

from pf_stream.errors import NotFoundError, PFError
from pf_stream.model.service import MAX_KID

__all__ = ["KeyFileError", "SigningKey", "TrustRoots", "public_keys", "write_private"]

_private_line: Final = re.compile(r"([0-9]{1,10}) +(ed25519-private/[0-9a-f]{64})").fullmatch
_public_line: Final = re.compile(r"([0-9]{1,10}) +(ed25519/[0-9a-f]{64})").fullmatch
_public_text: Final = re.compile(r"ed25519/[0-9a-f]{64}").fullmatch


class KeyFileError(PFError):
    """Raised when a file of keys cannot be used; the message never holds what the file says."""

    code = "bad_key_file"

    def __init__(self, path: str | os.PathLike[str], fault: str) -> None:
        self.path = os.fspath(path)
        super().__init__(f"{self.path}: {fault}")


@final
class SigningKey:
    """A private Ed25519 key that signs tokens, with its kid; its repr shows only the public half."""

    __slots__ = ("_pair", "kid", "public")

    kid: int
    """The number that tokens name it by, 0 to 2^32-1."""
    public: str
    """The public key, ``ed25519/`` and 64 hexadecimal digits."""

    def __init__(self, kid: int, pair: KeyPair) -> None:
        _check_kid(kid)
        self.kid = kid
        self.public = repr(pair.public_key)
        self._pair = pair

    @classmethod
    def generate(cls, kid: int | None = None) -> "SigningKey":
        """A new key; without *kid*, the first 31 bits of the public key's SHA-256 are it."""
        pair = KeyPair()
        if kid is None:
            digest = hashlib.sha256(bytes(pair.public_key.to_bytes())).digest()
            kid = int.from_bytes(digest[:4], "big") >> 1
        return cls(kid, pair)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SigningKey":
        """The key in the file at *path*.

        Raises:
            NotFoundError: there is no such file.
            KeyFileError: it holds something else, or someone but its owner may read it (as ssh does, we refuse).
        """
        text = _read(path, private=True)
        lines = list(_lines(text))
        match = _private_line(lines[0][1]) if len(lines) == 1 else None
        if match is None:
            if lines and _public_line(lines[0][1]):
                raise KeyFileError(path, "holds a public key; to sign, name the private file (without .pub)")
            raise KeyFileError(path, "is not a signing key; make one with: pf keys generate --out FILE")
        try:
            return cls(int(match[1]), KeyPair.from_private_key(PrivateKey(match[2])))
        except ValueError:
            raise KeyFileError(path, "is not a signing key: the number or the key is out of range") from None

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the private key to *path*, readable by its owner alone, and the public key to *path* + ``.pub``.

        Raises:
            KeyFileError: a file is there and *overwrite* is false, or it cannot be written.
        """
        target = Path(path)
        public = Path(f"{target}.pub")
        if not overwrite:
            for one in (target, public):
                if one.exists() or one.is_symlink():
                    raise KeyFileError(one, "is there already; choose another name, or say that it may be overwritten")
        _write(target, f"{self.kid} {self._pair.private_key!r}\n", 0o600, overwrite=overwrite)
        _write(public, f"{self.kid} {self.public}\n", 0o644, overwrite=overwrite)

    @property
    def private(self) -> PrivateKey:
        """The private half, for signing. Whoever prints it has published it."""
        return self._pair.private_key

    def __repr__(self) -> str:
        return f"<SigningKey kid={self.kid} public={self.public}>"

    def __reduce__(self) -> str:
        raise TypeError("a signing key is not pickled; save() it to a file of its own")


@final
class TrustRoots(Mapping[int, str]):
    """The public keys whose tokens are believed, by kid. Trust begins here, in configuration, never in a topic."""

    __slots__ = ("_keys", "_texts")

    def __init__(self, keys: Mapping[int, str]) -> None:
        """Take public keys as text, ``ed25519/...``, by kid.

        Raises:
            KeyFileError: a kid or a key is not one, or two kids have the same key.
        """
        parsed: dict[int, PublicKey] = {}
        kids: dict[str, int] = {}
        for kid, text in keys.items():
            _check_kid(kid)
            # The kid is not signed: under two numbers, every token of the key could be spelt in two ways.
            if kids.setdefault(text, kid) != kid:
                raise KeyFileError("trust roots", f"kids {kids[text]} and {kid} have the same key; keep one of them")
            if _public_text(text) is None:
                raise KeyFileError("trust roots", f"the key of kid {kid} is not 'ed25519/' and 64 hexadecimal digits")
            try:
                parsed[kid] = PublicKey(text)
            except ValueError:
                raise KeyFileError("trust roots", f"the key of kid {kid} is not a point of the curve") from None
        self._texts = dict(keys)
        self._keys = parsed

    @classmethod
    def of(cls, *keys: SigningKey) -> "TrustRoots":
        """The public halves of *keys*."""
        return cls(_merged(("trust roots", key.kid, key.public) for key in keys))

    @classmethod
    def load(cls, paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> "TrustRoots":
        """The public keys in one file or several.

        Raises:
            NotFoundError: a file is missing.
            KeyFileError: a line is not a public key, one kid has two keys, or there is no key at all.
        """
        files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        roots = cls(_merged(entry for path in files for entry in _public_entries(path)))
        if not roots:
            raise KeyFileError(
                ", ".join(os.fspath(path) for path in files) or "trust roots", "there is no public key to trust"
            )
        return roots

    def key(self, kid: int | None) -> PublicKey | None:
        """The key of *kid* for verifying, or None if it is not trusted."""
        return None if kid is None else self._keys.get(kid)

    def __getitem__(self, kid: int) -> str:
        return self._texts[kid]

    def __iter__(self) -> Iterator[int]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def __repr__(self) -> str:
        return f"<TrustRoots kids={sorted(self._texts)}>"


def public_keys(path: str | os.PathLike[str]) -> TrustRoots:
    """The public keys of a file, be it a signing key or public.

    Raises:
        NotFoundError: there is no such file.
        KeyFileError: it holds something else, or a signing key that others may read.
    """
    if "private" in _read(path, private=False):
        return TrustRoots.of(SigningKey.load(path))
    return TrustRoots.load(path)


def write_private(path: str | os.PathLike[str], text: str, *, overwrite: bool) -> None:
    """Write *text* to a file that only its owner may read; the file is there whole or not at all.

    Raises:
        KeyFileError: the file is there and *overwrite* is false, or it cannot be written.
    """
    _write(Path(path), text, 0o600, overwrite=overwrite)


def _public_entries(path: str | os.PathLike[str]) -> Iterator[tuple[str, int, str]]:
    for number, line in _lines(_read(path, private=False)):
        match = _public_line(line)
        if match is None:
            if "private" in line:
                raise KeyFileError(path, f"line {number} is a private key, which verifies nothing; name the .pub file")
            raise KeyFileError(
                path, f"line {number} is not a public key; write '<kid> ed25519/<64 hexadecimal digits>'"
            )
        yield os.fspath(path), int(match[1]), match[2]


def _merged(entries: Iterable[tuple[str, int, str]]) -> dict[int, str]:
    keys: dict[int, str] = {}
    for origin, kid, text in entries:
        if keys.setdefault(kid, text) != text:
            raise KeyFileError(origin, f"kid {kid} has two different keys; give one of them another kid")
    return keys


def _check_kid(kid: int) -> None:
    if not 0 <= kid <= MAX_KID:
        raise KeyFileError("kid", f"{kid} is not between 0 and {MAX_KID}")


def _lines(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.partition("#")[0].strip()
        if content:
            yield number, content


def _read(path: str | os.PathLike[str], *, private: bool) -> str:
    try:
        with Path(path).open("rb") as file:
            # The mode of what is open, not of what the name meant a moment before.
            mode = os.fstat(file.fileno()).st_mode
            if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise KeyFileError(
                    path,
                    f"others may read it (mode {stat.S_IMODE(mode):04o}); a signing key must be private: chmod 600 {os.fspath(path)}",
                )
            return file.read(1 << 20).decode("ascii")
    except FileNotFoundError:
        raise NotFoundError(f"{os.fspath(path)}: there is no such file") from None
    except OSError as error:
        raise KeyFileError(path, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeyFileError(path, "is not a file of keys") from None


def _write(path: Path, text: str, mode: int, *, overwrite: bool) -> None:
    # Written beside and renamed, so that there is never half a key, nor a moment in which others may read it. A link(2)
    # refuses to replace, which a rename does not.
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            if overwrite:
                beside.replace(path)
            else:
                path.hardlink_to(beside)
        finally:
            beside.unlink(missing_ok=True)
    except FileExistsError:
        raise KeyFileError(path, "is there already; choose another name, or say that it may be overwritten") from None
    except OSError as error:
        raise KeyFileError(path, f"cannot be written: {error.strerror}") from None
