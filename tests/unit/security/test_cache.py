"""What is kept is bounded, what is used stays, and nobody's entries cost another one his."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pf_stream.model.capability import parse_grant
from pf_stream.security import Claims, Refusal, SigningKey, TrustRoots, Verifier, attenuate, mint
from pf_stream.security._cache import BoundedCache
from pf_stream.security.narrowing import Bounds, Narrower
from tests.unit.security.cases import AUDIENCE, KEY, NOW_MS, ROOTS, append, code


class Held:
    """A value with an owner, that may grow."""

    def __init__(self, owner: str, size: int) -> None:
        self.owner = owner
        self.size = size


def cache(limit: int = 800) -> BoundedCache[int, Held]:
    return BoundedCache(limit, lambda _, value: value.size, lambda value: value.owner)


class TestBoundedCache:
    def test_an_owner_who_fills_his_share_begins_anew_and_nobody_else(self) -> None:
        kept = cache()  # 400 a generation, 100 a share
        kept.put(0, Held("ann", 90))
        for number in range(1, 1000):
            kept.put(number, Held("eve", 30))
            assert kept.get(number) is not None
        assert kept.get(0) is not None
        assert sum(value.owner == "eve" for value in kept.recent.values()) <= 3

    def test_a_value_that_outgrows_the_share_is_gone(self) -> None:
        kept = cache()
        mine, other = Held("eve", 30), Held("ann", 30)
        kept.put(1, mine)
        kept.put(2, other)
        for _ in range(7):
            assert kept.grow(1, mine, 10)
            mine.size += 10
        assert not kept.grow(1, mine, 10)
        assert kept.get(1) is None
        assert kept.get(2) is other
        assert not kept.grow(1, mine, 10), "what is not kept cannot grow"

    def test_larger_than_a_share_is_not_kept(self) -> None:
        kept = cache()
        kept.put(1, Held("eve", 101))
        assert len(kept) == 0

    def test_what_was_used_since_the_last_change_stays(self) -> None:
        kept = cache()
        first = Held("ann", 50)
        kept.put(0, first)
        for number in range(1, 200):
            kept.put(number, Held(f"user {number}", 50))
            assert kept.get(0) is first
        assert kept.get(1) is None

    def test_the_young_generation_is_always_the_same_object(self) -> None:
        kept = cache()
        recent = kept.recent
        for number in range(100):
            kept.put(number, Held(str(number), 50))
            assert number in recent
            assert sum(kept._shares.values()) == kept._young_bytes == 50 * len(recent)
        assert len(recent) <= 8

    def test_its_size_is_that_of_both_generations(self) -> None:
        kept = cache()  # 400 a generation
        for number in range(9):
            kept.put(number, Held(f"user {number}", 50))
        assert (len(kept.recent), kept.bytes) == (1, 450)
        assert kept.get(3) is not None, "it moves to the young one"
        assert (len(kept.recent), kept.bytes) == (2, 450)
        kept.drop(4)
        assert (len(kept), kept.bytes) == (8, 400)

    @settings(max_examples=200)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["put", "get", "grow", "drop"]),
                st.integers(0, 12),
                st.integers(1, 60),
                st.integers(0, 3),
            ),
            max_size=60,
        )
    )
    def test_it_adds_up_whatever_is_done(self, todo: list[tuple[str, int, int, int]]) -> None:
        kept = cache(400)
        for what, key, size, owner in todo:
            value = kept.get(key)
            if what == "put" and value is None:
                kept.put(key, Held(f"owner {owner}", size))
            elif what == "grow" and value is not None and kept.grow(key, value, size):
                value.size += size
            elif what == "drop":
                kept.drop(key)
                assert kept.get(key) is None
            held: dict[str, int] = {}
            for one in kept.recent.values():
                held[one.owner] = held.get(one.owner, 0) + one.size
            assert {name: size for name, size in kept._shares.items() if size} == held
            assert kept._young_bytes == sum(held.values()) <= 200
            assert all(size <= 50 for size in held.values())
            old = sum(one.size for one in kept._old.values())
            assert old <= 200
            assert kept.bytes == kept._young_bytes + old


def token(subject: str = "alice", **more: object) -> bytes:
    options = {"audience": AUDIENCE, "capabilities": [parse_grant("A.read:/a/**")], "now_ms": NOW_MS, **more}
    return mint(KEY, subject=subject, **options).encode()  # type: ignore[arg-type]


def verified(verifier: Verifier, text: bytes) -> Claims:
    seen = verifier.verify(text)
    assert isinstance(seen, Claims)
    return seen


class TestTokens:
    def test_what_was_verified_and_what_was_known_is_counted(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE)
        good, bad = token(), token()[:-8]
        for one in (good, bad, good, good, bad):
            verifier.verify(one)
        assert (verifier.accepted, verifier.rejected, verifier.known) == (1, 1, 3)
        assert {name: count for name, (count, _) in verifier.cached.items()} == {"accepted": 1, "refused": 1}
        assert verifier.cached["accepted"][1] == verified(verifier, good).size

    def test_who_narrows_for_ever_pushes_nobody_out(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE, cache_bytes=160_000)
        others = [token(f"user {number}") for number in range(10)]
        kept = [verified(verifier, other) for other in others]
        mine = token("eve")
        for number in range(150):
            verifier.verify(attenuate(mine, ROOTS, topics=[f"topic {number}"]).encode())
        assert [verifier.recent.get(other) for other in others] == kept

    def test_who_asks_about_ever_new_resources_pushes_nobody_out(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE, cache_bytes=160_000)
        other = verified(verifier, token("ann"))
        verifier.note(other, "question", True, 300)
        mine = token("eve")
        for number in range(1000):
            verifier.note(verified(verifier, mine), number, True, 300)
        assert verifier.recent.get(other.token) is other
        assert other.notes == {"question": True}
        sizes = {text: claims.size for text, claims in verifier.recent.items()}
        assert sum(sizes.values()) <= 20_000 + sizes[other.token]

    def test_what_was_good_for_nothing_lies_with_the_junk_until_it_is_good_for_something(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE)
        seen = verified(verifier, token())
        verifier.useless(seen)
        assert seen.token not in verifier.recent
        assert verifier.verify(seen.token) is seen, "it need not be verified again"
        verifier.useful(seen)
        assert verifier.recent.get(seen.token) is seen
        assert len(verifier._refused) == 0

    def test_expired_tokens_without_end_push_nobody_out(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE, cache_bytes=20_000, refused_cache_bytes=10_000)
        kept = verified(verifier, token("ann"))
        for number in range(100):
            verifier.useless(verified(verifier, token(f"client {number}")))
        assert verifier.recent.get(kept.token) is kept
        assert len(verifier._accepted) == 1
        assert len(verifier._refused) < 10

    def test_notes_are_of_these_bytes_alone(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE)
        tenants = [verified(verifier, token(tenant=tenant)) for tenant in ("x", "y")]
        narrow = verified(verifier, attenuate(tenants[0].token, ROOTS, topics=["q"]).encode())
        verifier.note(tenants[0], "question", True, 300)
        assert [len(seen.notes) for seen in (*tenants, narrow)] == [1, 0, 0]

    def test_a_note_counts_once(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE)
        seen = verified(verifier, token())
        before = seen.size
        for _ in range(3):
            verifier.note(seen, "question", True, 300)
        assert seen.size == before + 300

    def test_what_holders_add_outside_the_profile_is_short(self) -> None:
        """Reading much Datalog takes longer than its signatures; what is read at sight may be longer."""
        topics = [f"topic {number}" for number in range(30)]
        for size, expected in ((450, None), (550, "limits_reached")):
            odd = append(token().decode(), f'check if "{"x" * size}" != ""')
            for text in (odd, attenuate(odd, ROOTS, topics=topics)):
                assert code(Verifier(ROOTS, AUDIENCE).verify(text.encode())) == expected
        twice = token().decode()
        for letter in "xy":
            twice = append(attenuate(twice, ROOTS, topics=topics), f'check if "{letter * 300}" != ""')
        assert code(Verifier(ROOTS, AUDIENCE).verify(twice.encode())) == "limits_reached"

    def test_what_holders_add_outside_the_profile_is_little(self) -> None:
        for number, expected in ((12, None), (13, "limits_reached")):
            odd = append(token().decode(), ";".join(f"f({at})" for at in range(number)))
            assert code(Verifier(ROOTS, AUDIENCE).verify(odd.encode())) == expected

    def test_a_token_with_anything_outside_the_profile_is_short(self) -> None:
        for number, expected in ((40, None), (90, "limits_reached")):
            long = attenuate(token().decode(), ROOTS, topics=[f"topic {at}" for at in range(number)])
            assert code(Verifier(ROOTS, AUDIENCE).verify(long.encode())) is None
            odd = append(long, 'check if "" == ""')
            assert code(Verifier(ROOTS, AUDIENCE).verify(odd.encode())) == expected

    def test_what_is_too_long_is_found_before_its_signature_is_checked(self) -> None:
        odd = append(token().decode(), f'check if "{"x" * 600}" != ""')
        foreign = Verifier(TrustRoots.of(SigningKey.generate(KEY.kid)), AUDIENCE)
        assert code(foreign.verify(odd.encode())) == "limits_reached"
        assert code(foreign.verify(token())) == "bad_signature"

    def test_a_refused_token_has_no_notes(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE)
        junk = token()[:-1]
        assert isinstance(verifier.verify(junk), Refusal)
        assert junk not in verifier.recent


class TestNarrower:
    BOUNDS = Bounds((parse_grant("A.read:/a/**"),), frozenset({"t"}), frozenset({"q"}))

    def test_each_token_is_narrowed_once_for_the_same_bounds(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE)
        narrower = Narrower(verifier, ROOTS)
        other = Bounds(self.BOUNDS.capabilities, frozenset({"q"}), frozenset({"t"}))
        asked = [(text, bounds) for text in (token("ann"), token("bob")) for bounds in (self.BOUNDS, other)]
        made = [narrower(*one, NOW_MS) for one in asked]
        assert len(set(made)) == 4
        assert [narrower(*one, NOW_MS) for one in asked] == made, "each block has a key of its own: none is made twice"

    def test_what_was_made_is_forgotten_with_its_token(self) -> None:
        verifier = Verifier(ROOTS, AUDIENCE, cache_bytes=40_000)
        narrower = Narrower(verifier, ROOTS)
        for number in range(50):
            narrower(token(f"user {number}"), self.BOUNDS, NOW_MS)
        kept = [*verifier._accepted._young.items(), *verifier._accepted._old.items()]
        assert sum(claims.size for _, claims in kept) <= 40_000
        assert any(self.BOUNDS in claims.notes for _, claims in kept)
