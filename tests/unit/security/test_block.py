"""Blocks read from their bytes: as the library prints them, and without surprises."""

import pytest
from biscuit_auth import BlockBuilder, KeyPair
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pf_stream.security._block import Block, Closure, Op, Predicate, Query, Term, TermKind, read_blocks
from pf_stream.security._cost import decision_cost_us
from pf_stream.security._protobuf import Fault, fields
from pf_stream.security.envelope import Envelope, SealedBlock, to_base64url
from pf_stream.security.profile import read_profile
from tests.unit.security.cases import ENDS, PLAIN, append, biscuit, field, issue, joined, parts, varint

EVERYTHING = (
    'f(1, -1, "s", 2026-01-01T00:00:00Z, hex:0aff, true, null);'
    'g({1, 2}, ["a", [1]], {"k": {"l": 1}, 2: false});'
    "h($x) <- f($x, $y, $z, $a, $b, $c, $d), $x > 1 trusting authority, previous;"
    "check all f($x, $y, $z, $a, $b, $c, $d), $x + 1 == 2;"
    "check if [1, 2].all($p -> $p > 0 && [3].any($q -> $q > $p)) or {1}.length() == 1;"
    "reject if h(7);"
)


def sealed(data: bytes, *, third_party: bool = False) -> SealedBlock:
    return SealedBlock(data, b"\0" * 64, third_party)


def blocks_of(token: str) -> tuple[Block, ...]:
    return read_blocks(Envelope.read(token.encode()).blocks)


def data_of(token: str) -> list[bytes]:
    return [block.data for block in Envelope.read(token.encode()).blocks]


ORIGINALS = data_of(append(issue(PLAIN + ENDS), EVERYTHING))


class TestReading:
    def test_all_of_the_language(self) -> None:
        _, block = blocks_of(append(issue(PLAIN), EVERYTHING))
        assert block.facts == (
            Predicate(
                "f",
                (
                    Term(TermKind.INTEGER, 1),
                    Term(TermKind.INTEGER, 2**64 - 1),
                    Term(TermKind.STRING, "s"),
                    Term(TermKind.DATE, 1_767_225_600),
                    Term(TermKind.BYTES, b"\x0a\xff"),
                    Term(TermKind.BOOL, 1),
                    Term(TermKind.NULL, b""),
                ),
            ),
            Predicate(
                "g",
                (
                    Term(TermKind.SET, (Term(TermKind.INTEGER, 1), Term(TermKind.INTEGER, 2))),
                    Term(
                        TermKind.ARRAY, (Term(TermKind.STRING, "a"), Term(TermKind.ARRAY, (Term(TermKind.INTEGER, 1),)))
                    ),
                    Term(TermKind.MAP, block.facts[1].terms[2].value),
                ),
            ),
        )
        assert {term.kind for term in block.facts[1].terms[2].value} == {TermKind.MAP, TermKind.BOOL}
        (rule,) = block.rules
        assert (rule.head.name, rule.body[0].name, len(rule.body[0].terms), rule.scoped) == ("h", "f", 7, True)
        assert [(check.kind, len(check.queries)) for check in block.checks] == [(1, 1), (0, 2), (2, 1)]
        closure = block.checks[1].queries[0].expressions[0][1].value
        assert isinstance(closure, Closure)
        assert any(isinstance(op.value, Closure) for op in closure.ops)

    def test_symbols_go_on_from_block_to_block(self) -> None:
        token = append(append(issue(PLAIN), 'f("one", "alice", "read")'), 'f("two", "one", "query")')
        said = [[term.value for fact in block.facts for term in fact.terms] for block in blocks_of(token)[1:]]
        assert said == [["one", "alice", "read"], ["two", "one", "query"]]

    def test_the_default_symbols_are_the_librarys(self) -> None:
        # fmt: off
        names = [
            "read", "write", "resource", "operation", "right", "time", "role", "owner", "tenant", "namespace", "user", "team",
            "service", "admin", "email", "group", "member", "ip_address", "client", "client_ip", "domain", "path", "version",
            "cluster", "node", "hostname", "nonce", "query",
        ]
        # fmt: on
        source = "".join(f'{name}("{name}");' for name in names)
        (block,) = blocks_of(issue(source))
        assert [(fact.name, fact.terms[0].value) for fact in block.facts] == [(name, name) for name in names]
        assert not [number for number, _ in parts(data_of(issue(source))[0]) if number == 1], "they need no table"

    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters='"\\'), max_size=8), max_size=4))
    def test_strings_are_what_the_library_prints(self, strings: list[str]) -> None:
        source = "".join(f"f({{p{index}}});" for index in range(len(strings)))
        token = issue(source, {f"p{index}": text for index, text in enumerate(strings)})
        (block,) = blocks_of(token)
        assert "".join(f'f("{fact.terms[0].value}");\n' for fact in block.facts) == biscuit(token).block_source(0)

    @pytest.mark.parametrize(
        "extra", [field(2, b"context"), field(7, field(1, 1)), field(8, field(1, 0) + field(2, b"\0" * 32))]
    )
    def test_context_scopes_and_keys_make_a_block_less_than_plain(self, extra: bytes) -> None:
        (data,) = data_of(issue(PLAIN + ENDS))
        assert read_profile(read_blocks([sealed(data)])).closed
        (block,) = read_blocks([sealed(data + extra)])
        assert not block.plain
        assert not read_profile((block,)).closed

    def test_a_third_party_block_has_symbols_of_its_own(self) -> None:
        authority, holder = data_of(append(issue(PLAIN), 'check if topic("holder")'))
        _, foreign = data_of(append(issue(""), 'check if topic("foreign")'))
        first, second, third = read_blocks([sealed(authority), sealed(foreign, third_party=True), sealed(holder)])
        assert not second.plain
        assert second.checks[0].queries[0].body == (Predicate("topic", (Term(TermKind.STRING, "foreign"),)),)
        assert third.checks[0].queries[0].body == (Predicate("topic", (Term(TermKind.STRING, "holder"),)),)
        assert not read_profile((first, second, third)).closed

    def test_a_third_party_signature_is_seen(self) -> None:
        token = biscuit(issue(PLAIN + ENDS))
        pair = KeyPair()
        signed = token.third_party_request().create_block(pair.private_key, BlockBuilder('check if topic("q")'))
        text = to_base64url(bytes(token.append_third_party(pair.public_key, signed).to_bytes()))
        assert [block.third_party for block in Envelope.read(text.encode()).blocks] == [False, True]
        assert not read_profile(blocks_of(text)).closed


class TestStrictness:
    @pytest.mark.parametrize(
        "data",
        [
            b"",
            field(3, 2),
            field(3, 7),
            field(3, 3) + field(3, 3),
            field(3, 3) + field(9, b""),
            field(3, 3) + field(1, b"\xff"),
            field(3, 3) + field(1, 1),
            field(3, 3) + field(4, b""),
            field(3, 3) + field(4, 1),
            field(3, 3) + field(4, field(1, field(1, 28))),
            field(3, 3) + field(4, field(1, field(1, 1024))),
            field(3, 3) + field(4, field(1, field(1, 4) + field(1, 4))),
            field(3, 3) + field(4, field(1, field(2, field(2, 1)))),
            field(3, 3) + field(4, field(1, field(1, 4) + field(2, b""))),
            field(3, 3) + field(4, field(1, field(1, 4) + field(2, field(2, 1) + field(2, 1)))),
            field(3, 3) + field(4, field(1, field(1, 4) + field(2, field(6, 2)))),
            field(3, 3) + field(4, field(1, field(1, 4) + field(2, field(11, 1)))),
            field(3, 3) + field(4, field(1, field(1, 4) + field(2, field(7, field(2, b""))))),
            field(3, 3) + field(4, field(1, field(1, 4) + field(2, field(10, field(1, field(1, b"")))))),
            field(3, 3) + field(5, b""),
            field(3, 3) + field(6, field(2, 3)),
            field(3, 3) + field(6, field(2, 0) + field(2, 1)),
            # kinds of checks came with Biscuit 3.1, wherever the version stands
            field(3, 3) + field(6, field(1, field(1, field(1, 27))) + field(2, 0)),
            field(6, field(2, 0) + field(1, field(1, field(1, 27)))) + field(3, 3),
            field(3, 3) + field(6, field(1, field(1, field(1, 27)) + field(5, b""))),
            field(3, 3) + field(6, field(1, field(1, field(1, 27)) + field(3, field(2, b"")))),
            field(3, 3) + field(6, field(1, field(1, field(1, 27)) + field(3, field(1, b"")))),
            field(3, 3) + field(6, field(1, field(1, field(1, 27)) + field(3, field(1, field(5, b""))))),
            field(3, 3) + field(6, field(1, field(1, field(1, 27)) + field(3, field(1, field(2, b""))))),
            field(3, 3)
            + field(6, field(1, field(1, field(1, 27)) + field(3, field(1, field(3, field(1, 0) + field(1, 1)))))),
            # a variable without a name
            field(3, 3) + field(6, field(1, field(1, field(1, 27)) + field(2, field(1, 5) + field(2, field(1, 1024))))),
            field(3, 3) + field(6, field(1, field(1, field(1, 27)) + field(2, field(1, 5) + field(2, field(1, 28))))),
            field(3, 3) + b"\x25\0\0\0\0",
            field(3, 3) + b"\x1b",
            b"\x18",
            b"\x18\x83\x00",
            b"\x18" + b"\x80" * 10 + b"\x01",
            b"\x18" + b"\xff" * 9 + b"\x02",
            b"\x0a\x05abc",
        ],
    )
    def test_what_could_be_read_in_two_ways_is_refused(self, data: bytes) -> None:
        with pytest.raises(Fault):
            read_blocks([sealed(data)])

    def test_a_check_may_say_its_kind_where_the_version_knows_kinds(self) -> None:
        for kind in (0, 1):
            (block,) = read_blocks([sealed(field(3, 4) + field(6, field(1, field(1, field(1, 27))) + field(2, kind)))])
            assert [check.kind for check in block.checks] == [kind]

    def test_nesting_is_bounded(self) -> None:
        term, ops = field(2, 1), field(1, field(1, field(6, 1)))
        for _ in range(2000):
            term = field(9, field(1, term))
        with pytest.raises(Fault, match="nested too deeply"):
            read_blocks([sealed(field(3, 6) + field(4, field(1, field(1, 4) + field(2, term))))])
        for _ in range(2000):
            ops = field(2, field(4, ops))
        check = field(1, field(1, field(1, 27)) + field(3, field(1, field(4, ops))))
        with pytest.raises(Fault, match="nested too deeply"):
            read_blocks([sealed(field(3, 6) + field(6, check))])

    @settings(max_examples=150)
    @given(st.data())
    def test_changed_bytes_end_in_a_block_or_a_fault(self, data: st.DataObject) -> None:
        changed = [bytearray(one) for one in ORIGINALS]
        for _ in range(data.draw(st.integers(1, 3))):
            block = data.draw(st.sampled_from(changed))
            at = data.draw(st.integers(0, len(block) - 1))
            block[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
        try:
            blocks = read_blocks([sealed(bytes(one)) for one in changed])
            read_profile(blocks)
        except Fault:
            return
        assert decision_cost_us(blocks) > 0


class TestProtobuf:
    @given(st.lists(st.tuples(st.integers(1, 15), st.integers(0, 2**64 - 1) | st.binary(max_size=300))))
    def test_reads_what_was_written(self, message: list[tuple[int, int | bytes]]) -> None:
        assert fields(joined(message)) == message

    @given(st.binary(max_size=30))
    @example(b"\xa0\x00")
    @example(b"\x00\x00")
    def test_has_one_spelling(self, data: bytes) -> None:
        try:
            found = fields(data)
        except Fault:
            return
        assert joined(found) == data

    def test_numbers_are_64_bits(self) -> None:
        assert fields(b"\x08" + varint(2**64 - 1)) == [(1, 2**64 - 1)]
        with pytest.raises(Fault):
            fields(b"\x08" + varint(2**64))


def test_the_shapes_are_tuples() -> None:
    """The profile compares them with literals."""
    assert Op(3, 0) == (3, 0)
    assert Query(Predicate("query", ()), (), (), scoped=False).head == ("query", ())
