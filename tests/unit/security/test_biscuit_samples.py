"""The samples that the Biscuit project publishes: the judge that we ask, with our limits, and our own readers.

``tests/biscuit_samples/README.md`` says where they come from. All of them hold; none is left out.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from biscuit_auth import AuthorizationError, AuthorizerBuilder, Biscuit, BiscuitValidationError, PublicKey

from pf_stream.security import Refusal, TokenError, TrustRoots, Verifier, describe
from pf_stream.security._authoriser import refusal_of, set_limits
from pf_stream.security._block import Closure, Op, Predicate, Query, Term, TermKind, read_blocks
from pf_stream.security._cost import decision_cost_us
from pf_stream.security._protobuf import Fault
from pf_stream.security.envelope import Envelope, to_base64url
from pf_stream.security.profile import read_profile
from tests.unit.security.cases import joined, parts

FOLDER: Final = Path(__file__).parents[2] / "biscuit_samples"
PUBLISHED: Final = json.loads((FOLDER / "samples.json").read_text(encoding="utf-8"))
SAMPLES: Final[dict[str, dict[str, Any]]] = {sample["filename"]: sample for sample in PUBLISHED["testcases"]}
CASES: Final = [(name, which) for name, sample in SAMPLES.items() for which in sample["validations"]]

ROOT: Final = f"ed25519/{PUBLISHED['root_public_key']}"
KID: Final = 7

LONG = {"test026_public_keys_interning.bc"}
"""Whose blocks are not even looked at: they were appended, and say too much."""
NO_ENVELOPE: Final = {
    "test003_invalid_signature_format.bc": "a signature is not 64 bytes",
    "test036_secp256r1.bc": "a block's key is not Ed25519",
    "test037_secp256r1_third_party.bc": "a block's key is not Ed25519",
}
"""What our reader of envelopes refuses, and why: ECDSA on purpose, although Biscuit allows it."""
NO_BLOCKS: Final = NO_ENVELOPE | {"test004_random_block.bc": "a field has an unknown wire type"}
"""What has no blocks that we can read, and why."""

_text: Final = re.compile(r'"([^"]*)"')
_predicate: Final = re.compile(r"(?<![\w.:])([a-z][\w:]*)\(")


def data_of(name: str) -> bytes:
    return (FOLDER / name).read_bytes()


def with_kid(name: str) -> bytes:
    """The sample as we would get it. The samples name no key, and what names it is not signed."""
    return to_base64url(joined([(1, KID), *parts(data_of(name))])).encode()


def same(left: Any, right: Any = None) -> Any:
    """The extern function ``test`` of the samples."""
    if right is None:
        return left
    return "equal strings" if left == right else "different strings"


def ours(name: str, code: str) -> tuple[object, str | None]:
    """How the authorisation of a sample by *code* ends, and with which of our codes."""
    try:
        token = Biscuit.from_bytes(data_of(name), PublicKey(ROOT))
        builder = AuthorizerBuilder(code)
        builder.register_extern_func("test", same)  # type: ignore[attr-defined]
        set_limits(builder)
        return builder.build(token).authorize(), None
    except BiscuitValidationError as error:
        return str(error), None
    except AuthorizationError as error:
        text = str(error)
        code = refusal_of(error).code
        policy = re.search(r"an? (allow|deny) policy matched \(policy index: (\d+)\)", text)
        if policy is None:
            return text.removeprefix("Datalog  execution failure: "), code
        checks = re.findall(r"Check n°(\d+) in (?:block n°(\d+)|(authorizer)): ", text)
        return (policy[1], int(policy[2]), [(block or who, int(check)) for check, block, who in checks]), code


def theirs(result: dict[str, Any]) -> tuple[object, str | None]:
    """How it is published, in the words of the library and of :func:`ours`."""
    match result:
        case {"Ok": index}:
            return index, None
        case {"Err": {"Format": _}}:
            return "error deserializing or verifying the token", None
        case {"Err": {"FailedLogic": {"InvalidBlockRule": _}}}:
            return (
                "authorization failed: a rule provided by a block is producing a fact with unbound variables",
                None,
            )
        case {"Err": {"Execution": str(kind)}}:
            # "ShadowedVariable" is printed as "Shadowed variable".
            first, *others = re.findall("[A-Z][a-z]+", kind)
            return " ".join([first, *map(str.lower, others)]), "undecidable"
        case {"Err": {"FailedLogic": {"Unauthorized": {"policy": {"Allow": index}, "checks": failed}}}}:
            checks = []
            for check in failed:
                ((where, found),) = check.items()
                checks.append((str(found["block_id"]) if where == "Block" else "authorizer", found["check_id"]))
            by_token = any(where != "authorizer" for where, _ in checks)
            return ("allow", index, checks), "check_failed" if by_token else "insufficient_capabilities"
    raise AssertionError(f"a result of a kind that no sample had before: {result}")


class TestTheJudge:
    @pytest.mark.parametrize(("name", "which"), CASES)
    def test_decides_as_published_with_our_limits(self, name: str, which: str) -> None:
        validation = SAMPLES[name]["validations"][which]
        assert ours(name, validation["authorizer_code"]) == theirs(validation["result"])

    def test_every_sample_is_here(self) -> None:
        assert SAMPLES.keys() == {path.name for path in FOLDER.glob("*.bc")}
        assert (len(SAMPLES), len(CASES)) == (38, 50)


class TestOurReaders:
    @pytest.mark.parametrize("name", SAMPLES)
    def test_raise_nothing_but_what_they_declare(self, name: str) -> None:
        fault = NO_BLOCKS.get(name)
        if fault is not None:
            with pytest.raises(Fault, match=f"^{fault}$"):
                read_blocks(Envelope.read(with_kid(name)).blocks)
        else:
            blocks = read_blocks(Envelope.read(with_kid(name)).blocks)
            assert decision_cost_us(blocks) >= 0
            with pytest.raises(Fault, match=r"pf\(1\)|reserved|only the verifier|a right is not|must be a plain fact"):
                read_profile(blocks)
        with pytest.raises(TokenError):
            describe(with_kid(name))

    @pytest.mark.parametrize("name", SAMPLES)
    def test_none_is_believed(self, name: str) -> None:
        verifier = Verifier(TrustRoots({KID: ROOT}), "flights")
        outcome = verifier.verify(with_kid(name))
        forged = any(
            "Format" in validation["result"].get("Err", {}) for validation in SAMPLES[name]["validations"].values()
        )
        assert isinstance(outcome, Refusal)
        expected = "bad_signature" if forged and name not in NO_ENVELOPE else "malformed_token"
        assert outcome.code == ("limits_reached" if name in LONG else expected)
        unnamed = verifier.verify(to_base64url(data_of(name)).encode())
        assert isinstance(unnamed, Refusal)
        assert unnamed.code == ("unknown_key" if name not in NO_ENVELOPE else "malformed_token")

    @pytest.mark.parametrize("name", sorted(SAMPLES.keys() - NO_ENVELOPE.keys()))
    def test_take_the_envelope_apart_as_published(self, name: str) -> None:
        envelope = Envelope.read(with_kid(name))
        assert (envelope.kid, envelope.sealed) == (KID, name == "test020_sealed.bc")
        for validation in SAMPLES[name]["validations"].values():
            if validation["world"] is not None:
                assert [signature.hex() for signature in envelope.signatures] == validation["revocation_ids"]

    # What is published of reordered blocks is the order before.
    @pytest.mark.parametrize("name", sorted(SAMPLES.keys() - NO_BLOCKS.keys() - {"test006_reordered_blocks.bc"}))
    def test_read_blocks_as_published(self, name: str) -> None:
        envelope = Envelope.read(with_kid(name))
        published = SAMPLES[name]["token"]
        assert [one.third_party for one in envelope.blocks] == [one["external_key"] is not None for one in published]
        for block, said in zip(read_blocks(envelope.blocks), published, strict=True):
            statements = said["code"].removesuffix(";\n").split(";\n") if said["code"] else []
            checks = [one for one in statements if re.match("(check if|check all|reject if) ", one)]
            rules = [one for one in statements if one not in checks and " <- " in one]
            facts = [one for one in statements if one not in checks and one not in rules]
            assert list(map(read_fact, block.facts)) == list(map(printed, facts))
            assert list(map(read_query, block.rules)) == list(map(printed, rules))
            assert [read_queries(check.queries) for check in block.checks] == list(map(printed, checks))
            kinds = {"check if": 0, "check all": 1, "reject if": 2}
            assert [check.kind for check in block.checks] == [kinds[one[:9].rstrip()] for one in checks]
            assert block.plain == ("trusting" not in said["code"] and said["external_key"] is None)


# What a statement is compared by: the names of its predicates in their order, and the strings in it.
Said = tuple[list[str], set[str]]


def printed(statement: str) -> Said:
    """Of a statement as it is published."""
    # Keys of maps decide nothing here and are passed over by the reader.
    values = re.sub(r'"[^"]*": ', "", statement)
    return _predicate.findall(_text.sub("", statement)), set(_text.findall(values))


def read_fact(fact: Predicate) -> Said:
    return [fact.name], set(strings(fact.terms))


def read_query(rule: Query) -> Said:
    names, texts = read_queries((rule,))
    return [rule.head.name, *names], texts | set(strings(rule.head.terms))


def read_queries(queries: tuple[Query, ...]) -> Said:
    bodies = [predicate for query in queries for predicate in query.body]
    texts = {text for predicate in bodies for text in strings(predicate.terms)}
    texts |= {text for query in queries for ops in query.expressions for text in strings_of(ops)}
    return [predicate.name for predicate in bodies], texts


def strings(terms: tuple[Term, ...]) -> Iterator[str]:
    for term in terms:
        if term.kind == TermKind.STRING:
            yield term.value
        elif term.kind in {TermKind.SET, TermKind.ARRAY, TermKind.MAP}:
            yield from strings(term.value)


def strings_of(ops: tuple[Op, ...]) -> Iterator[str]:
    for op in ops:
        if isinstance(op.value, Closure):
            yield from strings_of(op.value.ops)
        elif isinstance(op.value, Term):
            yield from strings((op.value,))
