"""Scopes are sets of resources; these tests compare them with sets that are written out."""

import functools
import itertools
import re
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pf_stream.model.scope import BadScopeError, Scope, bad_segment, check_resource

# "z" is in no pattern: whatever a wildcard covers, it covers something that no literal does.
_LITERALS = ["a", "b", "c.d"]
_UNIVERSE = ["/"] + [
    "/" + "/".join(parts) for depth in (1, 2, 3, 4) for parts in itertools.product([*_LITERALS, "z"], repeat=depth)
]

scopes = st.builds(
    lambda segments, below: Scope(tuple(segments), below),
    st.lists(st.sampled_from([*_LITERALS, "*"]), max_size=3),
    st.booleans(),
)
resources = st.sampled_from(_UNIVERSE)


@functools.cache
def members(scope: Scope) -> frozenset[str]:
    """The resources of *scope* up to a depth of 4, by the text of the definition alone."""

    def matches(pattern: list[str], path: list[str]) -> bool:
        if not pattern:
            return not path
        if pattern == ["**"]:
            return True
        return bool(path) and pattern[0] in {"*", path[0]} and matches(pattern[1:], path[1:])

    pattern = [part for part in str(scope).split("/")[1:] if part]
    return frozenset(path for path in _UNIVERSE if matches(pattern, [part for part in path.split("/")[1:] if part]))


class TestParse:
    @pytest.mark.parametrize(
        "text", ["/", "/a", "/a/b", "/*", "/a/*", "/*/b", "/**", "/a/**", "/*/**", "/a b/ü", "/.a/..b/..."]
    )
    def test_prints_what_it_read(self, text: str) -> None:
        assert str(Scope.parse(text)) == text

    @given(scopes)
    def test_reads_what_it_printed(self, scope: Scope) -> None:
        assert Scope.parse(str(scope)) == scope

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "does not start with '/'"),
            ("a/b", "does not start with '/'"),
            ("**", "does not start with '/'"),
            ("//", "empty segment"),
            ("/a//b", "empty segment"),
            ("/a/", "empty segment"),
            ("/a/**/", "only at the end"),
            ("/a/../b", "the segment '..'"),
            ("/a/.", "the segment '.'"),
            ("/**/b", "only at the end"),
            ("/**/**", "only at the end"),
            ("/a*", "for a whole segment"),
            ("/***", "for a whole segment"),
            ("/a/b*c/d", "for a whole segment"),
            ("/a?", "a '?'"),
            ("/{a}", "a '{'"),
            ("/%2e%2e", "a '%'"),
            ("/a\n", "U+000A"),
            ("/a\0b", "U+0000"),
            ("/a\u202eb", "U+202E"),
            ("/e\u0301", "normal form C"),
        ],
    )
    def test_refuses_all_else_and_says_why(self, text: str, fault: str) -> None:
        with pytest.raises(BadScopeError, match=re.escape(fault)) as caught:
            Scope.parse(text)
        assert caught.value.code == "bad_scope"
        assert caught.value.text == text

    def test_is_frozen_data(self) -> None:
        scope = Scope.parse("/a/**")
        assert hash(scope) == hash(Scope.parse("/a/**"))
        assert scope == Scope.parse("/a/**") != Scope.parse("/a")
        with pytest.raises(AttributeError):
            scope.below = False  # type: ignore[misc]

    def test_any_is_everything(self) -> None:
        assert Scope.parse("/**") == Scope.ANY
        assert all(Scope.ANY.covers(path) for path in _UNIVERSE)


class TestCovers:
    @pytest.mark.parametrize(
        ("scope", "yes", "no"),
        [
            ("/", ["/"], ["/a", "/a/b"]),
            ("/a", ["/a"], ["/", "/b", "/a/b", "/aa"]),
            ("/a/*", ["/a/b", "/a/z"], ["/a", "/a/b/c", "/b/a"]),
            ("/*/b", ["/a/b", "/z/b"], ["/b", "/a/a", "/a/b/b"]),
            ("/a/**", ["/a", "/a/b", "/a/b/c"], ["/", "/b", "/aa", "/aa/b"]),
            ("/*/**", ["/a", "/a/b"], ["/"]),
            ("/**", ["/", "/a", "/a/b/c"], []),
            ("/UA/EWR", ["/UA/EWR"], ["/ua/ewr", "/UA/EWR/1", "/UA/EW"]),
        ],
    )
    def test_the_four_forms(self, scope: str, yes: list[str], no: list[str]) -> None:
        parsed = Scope.parse(scope)
        assert [path for path in yes + no if parsed.covers(path)] == yes

    @given(scopes)
    def test_covers_what_the_definition_says(self, scope: Scope) -> None:
        assert {path for path in _UNIVERSE if scope.covers(path)} == members(scope)

    @given(scopes)
    def test_is_exact_if_it_has_one_member(self, scope: Scope) -> None:
        assert scope.is_exact == (len(members(scope)) == 1)


class TestOrder:
    """Scopes under inclusion: a partial order with greatest lower bounds."""

    @given(scopes, scopes)
    def test_includes_is_inclusion_of_sets(self, one: Scope, other: Scope) -> None:
        assert one.includes(other) == (members(one) >= members(other))

    @given(scopes)
    def test_is_reflexive_and_below_any(self, scope: Scope) -> None:
        assert scope.includes(scope)
        assert Scope.ANY.includes(scope)

    @given(scopes, scopes, scopes)
    def test_is_transitive(self, one: Scope, two: Scope, three: Scope) -> None:
        if one.includes(two) and two.includes(three):
            assert one.includes(three)

    @given(scopes, scopes)
    def test_is_antisymmetric(self, one: Scope, other: Scope) -> None:
        if one.includes(other) and other.includes(one):
            assert one == other

    @given(scopes, scopes)
    @example(Scope.parse("/a/**"), Scope.parse("/*/b"))
    @example(Scope.parse("/a/**"), Scope.parse("/a"))
    @example(Scope.parse("/a/**"), Scope.parse("/*/**"))
    @example(Scope.parse("/*/b/**"), Scope.parse("/a/*"))
    def test_intersection_is_the_intersection_of_sets(self, one: Scope, other: Scope) -> None:
        met = one.intersect(other)
        assert (frozenset() if met is None else members(met)) == members(one) & members(other)
        assert met == other.intersect(one)

    @given(scopes, scopes, scopes)
    def test_intersection_is_the_greatest_lower_bound(self, one: Scope, other: Scope, lower: Scope) -> None:
        met = one.intersect(other)
        if met is not None:
            assert one.includes(met)
            assert other.includes(met)
        if one.includes(lower) and other.includes(lower):
            assert met is not None
            assert met.includes(lower)


# Any text, but the characters that separate, stand for others or mean something in a regular expression more often.
segment_texts = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from("/.*?%{}\\+()[]^$|-&~# ab\u0301"), max_size=6
)


class TestRegex:
    @given(scopes)
    def test_matches_the_same_resources(self, scope: Scope) -> None:
        matches = re.compile(scope.to_regex()).fullmatch
        assert {path for path in _UNIVERSE if matches(path)} == members(scope)

    @given(scopes)
    def test_is_read_back(self, scope: Scope) -> None:
        assert Scope.from_regex(scope.to_regex()) == scope

    @given(st.lists(segment_texts.filter(lambda text: not bad_segment(text)), min_size=1, max_size=3), segment_texts)
    def test_literals_match_themselves_alone(self, parts: list[str], other: str) -> None:
        scope = Scope.parse("/" + "/".join(parts))
        assert Scope.from_regex(scope.to_regex()) == scope
        assert re.fullmatch(scope.to_regex(), str(scope))
        assert (re.fullmatch(scope.to_regex(), "/" + other) is not None) == (str(scope) == "/" + other)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "^",
            "$",
            "/a",
            "^/a",
            "/a$",
            "^a$",
            "^/a.b$",
            "^/a/.*$",
            "^/a/[^/]*$",
            "^/a(/.*)?$",
            "^/a|/b$",
            "^/$$",
            "^^/a$",
            "^/a$\n",
            "^/**$",
        ],
    )
    def test_other_expressions_are_not_scopes(self, text: str) -> None:
        assert Scope.from_regex(text) is None


class TestCheckResource:
    @pytest.mark.parametrize("path", [*_UNIVERSE[:30], "/...", "/a.b", "/ a", "/ü", "/日本", "/a\\b", "/-", "/~a"])
    def test_accepts_concrete_paths(self, path: str) -> None:
        assert check_resource(path) is None

    @pytest.mark.parametrize(
        ("path", "fault"),
        [
            ("", "does not start with '/'"),
            ("a", "does not start with '/'"),
            ("a/b", "does not start with '/'"),
            ("//", "empty segment"),
            ("/a/", "empty segment"),
            ("//a", "empty segment"),
            ("/a//b", "empty segment"),
            ("/..", "the segment '..'"),
            ("/a/../b", "the segment '..'"),
            ("/./a", "the segment '.'"),
            ("/*", "a '*'"),
            ("/a/**", "a '*'"),
            ("/a?b", "a '?'"),
            ("/{a}", "a '{'"),
            ("/a}", "a '}'"),
            ("/%2e%2e/a", "a '%'"),
            ("/100%", "a '%'"),
            ("/a\0", "U+0000"),
            ("/a\r\nb", "U+000D"),
            ("/a\x7f", "U+007F"),
            ("/a\x85", "U+0085"),
            ("/a\u200b", "U+200B"),
            ("/a\u2028b", "U+2028"),
            ("/\u202ea", "U+202E"),
            ("/\ufeffa", "U+FEFF"),
            ("/a\ud800", "U+D800"),
            ("/a\U000e0061", "U+E0061"),
            ("/e\u0301", "normal form C"),
            ("/\u212b", "normal form C"),
        ],
    )
    def test_says_what_is_wrong(self, path: str, fault: str) -> None:
        said = check_resource(path)
        assert said is not None
        assert fault in said

    @given(st.text(max_size=8) | segment_texts.map("/".__add__))
    def test_what_passes_is_in_normal_form_and_has_whole_segments(self, path: str) -> None:
        if check_resource(path) is None:
            assert path == "/" or all(part not in {"", ".", ".."} for part in path[1:].split("/"))
            assert unicodedata.is_normalized("NFC", path)
            assert not set(path) & set("*?%{}\0\n")
            assert Scope.ANY.covers(path)
            assert Scope.parse(path).covers(path)
            assert Scope.parse(path).is_exact


class TestBadSegment:
    @pytest.mark.parametrize("value", ["EWR", "a.b", "...", ".a", "a..", " ", "ü", "a\\b", "0"])
    def test_accepts_names(self, value: str) -> None:
        assert not bad_segment(value)

    @pytest.mark.parametrize(
        "value",
        [
            "",
            "/",
            "a/b",
            "*",
            "**",
            "a*",
            "?",
            "{",
            "}",
            "{a}",
            "%",
            "%2e",
            ".",
            "..",
            "\0",
            "a\n",
            "\n",
            "\x7f",
            "\u202e",
            "e\u0301",
        ],
    )
    def test_refuses_what_is_no_segment(self, value: str) -> None:
        assert bad_segment(value)

    @given(segment_texts)
    def test_agrees_with_check_resource(self, value: str) -> None:
        assert bad_segment(value) == (not value or "/" in value or check_resource("/" + value) is not None)


# Default_Ignorable_Code_Point of Unicode 16 (DerivedCoreProperties.txt), but for what is not assigned.
IGNORABLE = [
    *(0x00AD, 0x034F, 0x061C, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFEFF, 0xFFA0),
    *range(0x180B, 0x1810),
    *range(0x200B, 0x2010),
    *range(0x202A, 0x202F),
    *range(0x2060, 0x2070),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0xFFF9),
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000, 0x11),
]


def test_what_prints_as_nothing_is_in_no_resource() -> None:
    for char in map(chr, IGNORABLE):
        assert bad_segment(f"a{char}b"), f"U+{ord(char):04X}"
        assert check_resource(f"/a{char}b") is not None, f"U+{ord(char):04X}"
        with pytest.raises(BadScopeError, match=rf"U\+{ord(char):04X}"):
            Scope.parse(f"/a{char}b/**")
