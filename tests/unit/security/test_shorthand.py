"""What is read at sight: the tokens that tools of ours make, and never anything else than the readers proper read."""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.model.capability import parse_grant
from pf_stream.security import attenuate, mint
from pf_stream.security._block import DEFAULT_SYMBOLS, read_blocks
from pf_stream.security._protobuf import Fault
from pf_stream.security._shorthand import read_shorthand, unread
from pf_stream.security.envelope import Envelope, SealedBlock
from pf_stream.security.profile import Profile, read_profile
from tests.unit.security.cases import ENDS, KEY, NOW_MS, PLAIN, ROOTS, append, issue, random_case

GRANTS = [parse_grant("A.read:/a/**"), parse_grant("A.write:/a/b"), parse_grant("B.root:/*/x.y/**")]
HOURS = "mon-fri 09:00-17:00 UTC"
MINTED = mint(
    KEY,
    subject="alice",
    audience="flights",
    tenant="acme",
    capabilities=[*GRANTS, parse_grant(f"A.delete:/a/* during {HOURS}")],
    intent_types=["t", "u"],
    topics=[f"topic{number}" for number in range(9)],
    now_ms=NOW_MS,
    not_before_ms=NOW_MS,
    session="s-1",
    attributes={"role": "admin", "plan": "team", "desk": "7"},
    authenticated_ms=NOW_MS - 5000,
    during=[HOURS, "calendar shop"],
)
NARROW = attenuate(
    attenuate(MINTED, ROOTS, capabilities=GRANTS, topics=["topic1"]),
    ROOTS,
    capabilities=GRANTS * 2,
    intent_types=["u"],
    expires_ms=NOW_MS + 5000,
    during=[HOURS],
)
NOTHING = attenuate(
    mint(KEY, subject="alice", audience="flights", capabilities=[], now_ms=NOW_MS), ROOTS, capabilities=[]
)


def sealed(token: str) -> tuple[SealedBlock, ...]:
    return Envelope.read(token.encode()).blocks


def proper(blocks: tuple[SealedBlock, ...]) -> Profile | None:
    """What the readers proper say; None for a fault or a token that is open."""
    try:
        profile = read_profile(read_blocks(blocks))
    except Fault:
        return None
    return profile if profile.closed else None


@pytest.mark.parametrize("token", [MINTED, NARROW, NOTHING])
def test_what_our_tools_make_is_read_at_sight(token: str) -> None:
    seen = read_shorthand(sealed(token))
    assert seen is not None
    assert seen == proper(sealed(token))


@pytest.mark.slow
def test_whatever_our_tools_make_is_read_at_sight() -> None:
    letters = st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"))
    # Those that every token knows are written shorter; as attributes they are common, as names they are not.
    names = st.text(letters, min_size=1, max_size=8).filter(lambda name: name not in DEFAULT_SYMBOLS)
    texts = st.one_of(names, st.sampled_from(["role", "admin", "a" * 127]))
    several = st.none() | st.lists(names, min_size=1, max_size=4)
    hours = st.none() | st.lists(
        st.sampled_from([HOURS, "calendar shop", "not sat 09:00-10:00 Asia/Kolkata"]), min_size=1
    )
    moments = st.none() | st.integers(NOW_MS - 10**9, NOW_MS)
    limited = st.lists(st.sampled_from([*GRANTS, parse_grant(f"A.delete:/a/* during {HOURS}")]), max_size=4)
    minted = st.fixed_dictionaries({
        "subject": names, "tenant": st.none() | names, "session": st.none() | names, "capabilities": limited,
        "attributes": st.none() | st.dictionaries(texts, texts, max_size=32), "authenticated_ms": moments,
        "intent_types": several, "topics": several, "not_before_ms": moments, "during": hours,
    })  # fmt: skip
    narrowed = st.fixed_dictionaries({
        "capabilities": st.none() | st.lists(st.sampled_from(GRANTS), max_size=4), "intent_types": several,
        "topics": several, "expires_ms": st.integers(NOW_MS, NOW_MS + 10**7), "during": hours,
    })  # fmt: skip

    @settings(max_examples=200, deadline=None)
    @given(minted, st.lists(narrowed, max_size=3))
    def check(made: dict[str, Any], hops: list[dict[str, Any]]) -> None:
        token = mint(KEY, audience="flights", now_ms=NOW_MS, **made)
        for hop in hops:
            token = attenuate(token, ROOTS, **hop)
        seen = read_shorthand(sealed(token))
        assert seen is not None
        assert seen == proper(sealed(token))

    check()


@settings(max_examples=200)
@given(st.randoms(use_true_random=False))
def test_it_agrees_with_the_readers_proper(rng: Random) -> None:
    blocks = sealed(random_case(rng).token())
    assert read_shorthand(blocks) in (None, proper(blocks))


@pytest.mark.slow
def test_it_agrees_whatever_byte_is_changed() -> None:
    """Each byte of each block becomes each of its neighbours and what has a meaning elsewhere in a block."""
    blocks = sealed(NARROW)
    seen = 0
    for index, block in enumerate(blocks):
        for at, old in enumerate(block.data):
            for new in {old ^ 1, old ^ 8, old ^ 0x80, 0x00, 0x03, 0x05, 0x12, 0x1B, 0x32} - {old}:
                data = block.data[:at] + bytes((new,)) + block.data[at + 1 :]
                changed = (*blocks[:index], SealedBlock(data, block.signature, third_party=False), *blocks[index + 1 :])
                found = read_shorthand(changed)
                assert found is None or found == proper(changed), (index, at, new)
                seen += found is not None
    assert seen > 500, "most letters of a name may be others"


@pytest.mark.slow
def test_it_agrees_whatever_is_cut_or_repeated() -> None:
    blocks = sealed(NARROW)
    for index, block in enumerate(blocks):
        for at in range(len(block.data)):
            for data in (block.data[:at], block.data[at:], block.data + block.data[at:], block.data[:at] * 2):
                changed = (*blocks[:index], SealedBlock(data, block.signature, third_party=False), *blocks[index + 1 :])
                found = read_shorthand(changed)
                assert found is None or found == proper(changed), (index, at)


@pytest.mark.parametrize(
    "more",
    [
        'right("A.read", "/b/**")',
        'subject("bob")',
        'subject("admin")',
        "pf(1)",
        'pf("1")',
        "pf(2)",
        "subject(1)",
        'other("x")',
        'time("x")',
        'right("A.read", "no path")',
        'right("operation", "/a")',
        "right($x, $y) <- right($x, $y)",
        'check if topic("q") or intent_type("t")',
        'check if topic("q") or request("A.read", "/a")',
        'check if topic("")',
        'check if other("q")',
        'check if request("A.read", "/a/*")',
        'check if request("A.read", $r), $r.matches("^/a.*$")',
        'check if request("A.read", $r), $r.matches("^/a$") or request("A.read", "/a")',
        'check if topic("A.read", "/a")',
        'check all topic("q")',
        'reject if topic("q")',
        'check if topic("q") trusting previous',
        "check if time($t), $t <= 2026-01-01T00:10:00Z",
        "check if time($time), $time < 2026-01-01T00:10:00Z",
        "check if time($t), $t < 1970-01-01T00:00:01Z",
        "check if false",
        "check if false or false",
        'check if false or topic("q")',
        'check if during("no time")',
        'check if during("")',
        'check if during("sat 09:00-10:00 UTC") or topic("q")',
        'check if during("sat 09:00-10:00 UTC", "sun 09:00-10:00 UTC")',
        "issued(2026-01-01T00:00:00Z)",
        "issued(1970-01-01T00:00:00Z)",
        'issued("today")',
        "expired(2026-01-01T00:00:00Z)",
        "subject(2026-01-01T00:00:00Z)",
        'session("s")',
        'session("")',
        'attribute("role", "admin"); attribute("role", "user")',
        'attribute("role", "")',
        'attribute("role")',
        'attribute("role", "admin", "user")',
        'attribute("role", $v) <- attribute("role", $v)',
        'attributes("role", "admin")',
        'right("A.read", "/b/**", "no time")',
        'right("A.read", "/b/**", "sat 09:00-10:00 UTC", "sun 09:00-10:00 UTC")',
        ";".join(f'attribute("{number}", "x")' for number in range(33)),
        f'check if topic("{"x" * 200}")',
    ],
)
def test_it_agrees_about_what_others_write(more: str) -> None:
    before = f"{more}; {PLAIN.replace('subject', 'tenant', 1) if more.startswith('subject') else PLAIN}{ENDS}"
    for token in (
        issue(f"{PLAIN}{ENDS}{more}"),
        issue(before),
        append(issue(PLAIN + ENDS), more),
        append(NARROW, more),
    ):
        assert read_shorthand(sealed(token)) in (None, proper(sealed(token)))


def test_what_holders_added_and_is_not_read_is_counted() -> None:
    """Also after a block that is not read: its symbols are known to those after it."""
    narrow: dict[str, Any] = {"capabilities": GRANTS, "topics": [f"topic{number}" for number in range(40)]}
    odd = f'check if odd("{"x" * 200}", "this") or odd("is", "odd")'
    for first in (MINTED, issue(f'{PLAIN}{ENDS} odd("{"y" * 200}", "z"); odd("is", "z");'), issue(PLAIN + odd)):
        token = append(attenuate(first, ROOTS, **narrow), odd)
        token = attenuate(append(attenuate(token, ROOTS, **narrow), odd), ROOTS, during=[HOURS])
        blocks = sealed(token)
        assert read_shorthand(blocks) is None
        assert unread(blocks) == (len(blocks[2].data) + len(blocks[4].data), 2)
        foreign = blocks[1]._replace(third_party=True)
        assert unread((blocks[0], foreign)) == (len(foreign.data), 2)
    with pytest.raises(Fault):
        unread((blocks[0], SealedBlock(b"\x0a\x7f", blocks[1].signature, third_party=False)))


def test_a_block_of_a_third_party_is_not_ours_to_read() -> None:
    blocks = sealed(NARROW)
    foreign = blocks[1]._replace(third_party=True)
    assert read_shorthand((blocks[0], foreign, blocks[2])) is None


def test_rights_are_the_authority_blocks_alone() -> None:
    """Also where the authority block has no symbol of its own, and the next one has all of them."""
    whole, _ = sealed(append(issue(PLAIN + ENDS), "check if false"))
    empty = SealedBlock(b"\x18\x03", whole.signature, third_party=False)
    assert read_shorthand((whole,)) is not None
    assert read_shorthand((empty, whole)) is None


def test_no_upper_bound_in_the_authority_block_is_an_open_token() -> None:
    blocks = sealed(append(issue(PLAIN), ENDS))
    assert proper(blocks) is None
    assert read_shorthand(blocks) is None
