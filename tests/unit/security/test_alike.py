"""What a pattern reads of a token is what the readers read of it, or nothing."""

from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.model.capability import parse_grant
from pf_stream.security import Claims, Verifier, attenuate, mint
from pf_stream.security._alike import _MOST, _TIMES, Alike, Seen
from pf_stream.security._block import read_blocks
from pf_stream.security._protobuf import Fault, varint
from pf_stream.security._shorthand import read_shorthand
from pf_stream.security.envelope import Envelope, from_base64url
from pf_stream.security.profile import read_profile
from tests.unit.security.cases import AUDIENCE, KEY, NOW_MS, ROOTS

HOURS: Final = "mon-fri 09:00-17:00 UTC"
FULL: Final[dict[str, Any]] = {
    "capabilities": [parse_grant("A.read:/a/**"), parse_grant(f"A.write:/b/* during {HOURS}")],
    "tenant": "acme",
    "session": "s-1",
    "attributes": {"role": "admin", "plan": "team", "desk": "7"},
    "authenticated_ms": NOW_MS - 5000,
    "not_before_ms": NOW_MS,
    "intent_types": ["t"],
    "during": [HOURS],
}


def minted(subject: str = "alice", **more: Any) -> str:
    said: dict[str, Any] = {"capabilities": FULL["capabilities"], **more}
    return mint(KEY, subject=subject, audience=AUDIENCE, now_ms=said.pop("now_ms", NOW_MS), **said)


def narrowed(token: str) -> str:
    for topics in (["q", "r"], ["q"]):
        token = attenuate(token, ROOTS, capabilities=[parse_grant("A.read:/a/**")], topics=topics)
    return attenuate(token, ROOTS, expires_ms=NOW_MS + 60_000)


def readers(data: bytes) -> Seen | None:
    """What the readers say of a token in the profile."""
    try:
        envelope = Envelope.of(data)
        profile = read_profile(read_blocks(envelope.blocks))
    except Fault:
        return None
    if not profile.closed or any(block.third_party for block in envelope.blocks) or envelope.sealed:
        return None
    return Seen(envelope.kid or 0, envelope.signatures, profile)


def learnt(token: str) -> Alike:
    alike = Alike()
    envelope = Envelope.read(token.encode())
    profile = read_shorthand(envelope.blocks)
    assert profile is not None
    for _ in range(_TIMES):
        assert alike.read(envelope.data) is None
        alike.learn(envelope, profile)
    return alike


@pytest.mark.slow
@pytest.mark.parametrize("token", [minted(), minted(**FULL), narrowed(minted()), narrowed(minted(**FULL))])
def test_it_agrees_whatever_byte_is_changed(token: str) -> None:
    alike = learnt(token)
    data = from_base64url(token.encode())
    assert alike.read(data) == readers(data) is not None
    seen = 0
    for at, old in enumerate(data):
        for new in {old ^ 1, old ^ 2, old ^ 8, old ^ 0x80, 0x00, 0x05, 0x0A, 0x1B, 0x7F, 0x80, 0xFF} - {old}:
            changed = data[:at] + bytes((new,)) + data[at + 1 :]
            found = alike.read(changed)
            assert found is None or found == readers(changed), (at, new)
            seen += found is not None
        for changed in (data[:at], data[at:], data[:at] + data[at + 1 :], data[:at] + data[at : at + 1] + data[at:]):
            found = alike.read(changed)
            assert found is None or found == readers(changed), at
    assert seen > 500, "most bytes of a signature may be others"


@pytest.mark.slow
def test_it_reads_what_differs_in_names_and_dates() -> None:
    letters = st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"))
    printing = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
    names = st.one_of(
        *(
            st.lists(st.text(one, min_size=1, max_size=30), min_size=6, max_size=6, unique=True)
            for one in (printing, letters)
        )
    ).filter(lambda six: all(len(name.encode()) < 128 for name in six))
    patterns = {full: learnt(minted(**FULL) if full else minted()) for full in (True, False)}
    seen = []

    @settings(max_examples=200, deadline=None)
    @given(names, st.integers(10**9, 2 * 10**9), st.booleans())
    def check(six: list[str], at_s: int, full: bool) -> None:
        subject, tenant, session, *values = six
        more: dict[str, Any] = {"now_ms": at_s * 1000}
        if full:
            more |= FULL | {"tenant": tenant, "session": session, "not_before_ms": at_s * 1000 + 5000}
            more["attributes"] = dict(zip(FULL["attributes"], values, strict=True))
        data = from_base64url(minted(subject, **more).encode())
        found = patterns[full].read(data)
        assert found is None or found == readers(data)
        seen.append(found is not None)

    check()
    # The others have a size that is written in another number of bytes, or a name that is also the name of something else.
    assert sum(seen) >= 10


def test_a_name_that_is_used_twice_is_no_place_to_differ() -> None:
    """The subject is also the resource of a right: who has another name has another right."""
    alike = learnt(minted("/home/ann", capabilities=[parse_grant("A.read:/home/ann")]))
    for other in ("/home/ann", "/home/bob"):
        data = from_base64url(minted(other, capabilities=[parse_grant(f"A.read:{other}")]).encode())
        found = alike.read(data)
        assert found is None or found == readers(data)
        assert (found is not None) == (other == "/home/ann")


def test_what_is_no_name_is_not_read() -> None:
    alike = learnt(minted("alice"))
    data = from_base64url(minted("alice").encode())
    for name in (b"al\nce", b"al\xffce", b"\x00\x00\x00\x00\x00"):
        changed = data.replace(b"alice", name)
        assert alike.read(changed) is None
        assert readers(changed) is None


def test_a_length_of_two_bytes_is_not_one_of_one_byte() -> None:
    data = from_base64url(minted("alice").encode())
    alike = learnt(minted("alice"))
    envelope = Envelope.of(data)
    block = envelope.blocks[0].data
    for length in (100, 127, 128, 150, 200):
        longer = block.replace(b"\x05alice", bytes((length,)) + b"a" * length)
        inner = b"\x0a" + varint(len(longer)) + longer
        rest = data[data.index(block) + len(block) :]
        after = rest[: rest.index(b"\x22\x22\x0a\x20")]
        made = data[:2] + b"\x12" + varint(len(inner) + len(after)) + inner + rest
        found = alike.read(made)
        assert (found is not None) == (length < 128)
        assert found == readers(made)


def test_patterns_are_made_of_what_is_seen_often_and_few_are_kept() -> None:
    alike = Alike()
    for size in range(1, _MOST + 4):
        token = minted(capabilities=[parse_grant(f"A.read:/{'x' * size}")])
        envelope = Envelope.read(token.encode())
        profile = read_shorthand(envelope.blocks)
        assert profile is not None
        for _ in range(_TIMES - 1):
            alike.learn(envelope, profile)
        assert alike.read(envelope.data) is None
        alike.learn(envelope, profile)
        assert alike.read(envelope.data) is not None
    assert len(alike._patterns) == _MOST


def test_kinds_without_end_are_not_all_counted() -> None:
    alike = Alike()
    envelope = Envelope.read(minted().encode())
    profile = read_shorthand(envelope.blocks)
    assert profile is not None
    for number in range(2000):
        alike.learn(envelope, profile._replace(audience=str(number)))
    assert len(alike._counts) < 300


def test_a_verifier_says_the_same_of_tokens_that_are_alike() -> None:
    verifier = Verifier(ROOTS, AUDIENCE)
    for number in range(3 * _TIMES):
        token = narrowed(minted(f"user {number:02}", **FULL)).encode()
        seen, alone = verifier.verify(token), Verifier(ROOTS, AUDIENCE).verify(token)
        assert isinstance(seen, Claims)
        assert isinstance(alone, Claims)
        assert seen.caller == alone.caller
        assert seen.revocation_ids == alone.revocation_ids
        assert seen.during == alone.during
    assert len(verifier._alike._patterns) == 1
    forged = Verifier(ROOTS, AUDIENCE).verify(token[:-60] + bytes(reversed(token[-60:])))
    assert forged == verifier.verify(token[:-60] + bytes(reversed(token[-60:])))
