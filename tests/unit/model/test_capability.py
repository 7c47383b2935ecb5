"""Families, grants and what implies what. Family names are unique in a process, so each test has its own."""

from dataclasses import replace
from typing import Literal, assert_type

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pf_stream.errors import DefinitionError, PFError
from pf_stream.model.capabilities import Capabilities
from pf_stream.model.capability import (
    PUBLIC,
    BadGrantError,
    Capability,
    Field,
    Grant,
    HeldGrant,
    Operation,
    Public,
    define,
    family,
    grant,
    implied_by,
    implies,
    operation,
    parse_grant,
)
from pf_stream.model.scope import Scope
from pf_stream.model.when import When


class AlgebraDoc(Capability):
    """admin > write > read, execute > read, and another family above all."""

    read = operation()
    write = operation(implies=read)
    execute = operation(implies=[read])
    admin = operation(implies={write, execute})


class AlgebraOps(Capability):
    root = operation(implies=AlgebraDoc.admin)
    watch = operation()


ALL = [*AlgebraDoc.__operations__.values(), *AlgebraOps.__operations__.values()]

# Who satisfies what, written out: required -> held.
HOLDERS = {
    "AlgebraDoc.read": {
        "AlgebraDoc.read",
        "AlgebraDoc.write",
        "AlgebraDoc.execute",
        "AlgebraDoc.admin",
        "AlgebraOps.root",
    },
    "AlgebraDoc.write": {"AlgebraDoc.write", "AlgebraDoc.admin", "AlgebraOps.root"},
    "AlgebraDoc.execute": {"AlgebraDoc.execute", "AlgebraDoc.admin", "AlgebraOps.root"},
    "AlgebraDoc.admin": {"AlgebraDoc.admin", "AlgebraOps.root"},
    "AlgebraOps.root": {"AlgebraOps.root"},
    "AlgebraOps.watch": {"AlgebraOps.watch"},
}

operations = st.sampled_from(ALL)
patterns = st.sampled_from(["/", "/a", "/b", "/a/b", "/*", "/a/*", "/*/b", "/**", "/a/**", "/*/**"])
grants = st.builds(lambda op, pattern: op(pattern), operations, patterns)
templates = st.builds(
    lambda op, pattern: op(pattern), operations, st.sampled_from(["/{x}", "/a/{x}", "/{x...}", "/a/{x...}"])
)


class TestOperations:
    def test_are_typed(self) -> None:
        assert_type(AlgebraDoc.read, Operation)
        assert_type(AlgebraDoc.read("/a"), Grant)
        assert_type(PUBLIC, Literal[Public.PUBLIC])

    def test_are_named_by_their_family(self) -> None:
        assert [op.name for op in ALL] == list(HOLDERS)
        assert repr(AlgebraDoc.read) == "<operation AlgebraDoc.read>"

    def test_implication_is_reflexive_transitive_and_crosses_families(self) -> None:
        assert {op.name: op.implied_by for op in ALL} == HOLDERS

    def test_a_later_family_reaches_an_earlier_one(self) -> None:
        class AlgebraEarly(Capability):
            leaf = operation()
            branch = operation(implies=leaf)

        before = AlgebraEarly.leaf.implied_by

        class AlgebraLate(Capability):
            trunk = operation(implies=AlgebraEarly.branch)

        assert before == {"AlgebraEarly.leaf", "AlgebraEarly.branch"}
        assert AlgebraEarly.leaf.implied_by == before | {"AlgebraLate.trunk"}
        assert AlgebraLate.trunk.implied_by == {"AlgebraLate.trunk"}

    def test_a_module_may_be_loaded_twice(self) -> None:
        def load() -> type[Capability]:
            class AlgebraTwice(Capability):
                a = operation()
                b = operation(implies=a)

            return AlgebraTwice

        first, second = load().__operations__, load().__operations__

        class AlgebraAbove(Capability):
            c = operation(implies=second["b"])

        third = load().__operations__
        for one in (first, second, third):
            assert one["a"].implied_by == {"AlgebraTwice.a", "AlgebraTwice.b", "AlgebraAbove.c"}
        assert first["a"]("/x") == second["a"]("/x")
        assert implies(first["b"]("/x"), second["a"]("/x"))

    def test_has_no_name_without_a_family(self) -> None:
        loose = operation()
        assert "without a family" in repr(loose)
        with pytest.raises(DefinitionError, match="assign it in the body of a Capability class"):
            loose("/a")

    def test_a_family_has_no_instances(self) -> None:
        with pytest.raises(TypeError, match=r"write AlgebraDoc\.<operation>\(scope\)"):
            AlgebraDoc()


class TestDefinitionErrors:
    def test_every_fault_is_told_at_once_with_its_fix(self) -> None:
        loose = operation()
        with pytest.raises(DefinitionError) as caught:

            class AlgebraBad(Capability):
                limit = 3
                later: Operation
                a = operation(implies="read")  # type: ignore[arg-type]
                b = operation(implies=loose)
                c = a
                d = AlgebraDoc.read
                ö = operation()  # noqa: PLC2401 - that is the point

                def helper(self) -> None: ...

        assert caught.value.subject == f"capability family {__name__}.{self._name('AlgebraBad')}"
        assert caught.value.faults == (
            "limit is 3, not an operation; write limit = operation(), or name it _limit",
            "helper is a function, not an operation; write helper = operation(), or name it _helper",
            "later is only annotated; write later = operation()",
            "c and a are one operation; write c = operation()",
            "d is the operation AlgebraDoc.read; write d = operation(implies=AlgebraDoc.read)",
            "ö: the name cannot be written into a token; begin with an ASCII letter, then letters, digits and '_'",
            "a implies 'read', which is not an operation; name the operation itself",
            "b implies an operation that belongs to no family; assign it in the body of one",
        )

    def _name(self, family: str) -> str:
        return f"TestDefinitionErrors.test_every_fault_is_told_at_once_with_its_fix.<locals>.{family}"

    def test_a_family_derives_from_capability_alone(self) -> None:
        with pytest.raises(DefinitionError, match="derive from Capability alone"):

            class AlgebraDerived(AlgebraDoc):
                more = operation()

    def test_a_family_has_operations(self) -> None:
        with pytest.raises(DefinitionError, match="declare at least one, such as read"):

            class AlgebraEmpty(Capability):
                """Nothing."""

    def test_a_family_has_a_name_for_tokens(self) -> None:
        with pytest.raises(DefinitionError, match="use ASCII letters"):
            type("Älgebra", (Capability,), {"read": operation()})

    def test_private_attributes_are_free(self) -> None:
        class AlgebraPrivate(Capability):
            _note = "anything"
            read = operation()

        assert set(AlgebraPrivate.__operations__) == {"read"}

    def test_an_operation_is_not_private(self) -> None:
        with pytest.raises(DefinitionError, match="_read: the name cannot be written into a token"):

            class AlgebraHidden(Capability):
                _read = operation()

    def test_one_name_has_one_meaning(self) -> None:
        type("AlgebraTaken", (Capability,), {"read": operation()})
        with pytest.raises(DefinitionError, match=r"another family is called AlgebraTaken .*rename one"):
            type("AlgebraTaken", (Capability,), {"read": operation(), "write": operation()})
        with pytest.raises(DefinitionError, match=r"another family is called AlgebraTaken .*rename one"):
            type("AlgebraTaken", (Capability,), {"read": operation(implies=AlgebraDoc.read)})

    def test_a_refused_family_changes_nothing(self) -> None:
        target, name = AlgebraOps.watch, "AlgebraRefused"
        with pytest.raises(DefinitionError, match="limit is 3"):
            type(name, (Capability,), {"limit": 3, "read": operation(implies=target)})
        assert target.implied_by == {"AlgebraOps.watch"}
        type(name, (Capability,), {"write": operation()})

    def test_implication_does_not_run_in_a_circle(self) -> None:
        low = type("AlgebraLow", (Capability,), {"a": operation()}).__operations__["a"]  # type: ignore[attr-defined]
        mid = type("AlgebraMid", (Capability,), {"b": operation(implies=low)}).__operations__["b"]  # type: ignore[attr-defined]
        with pytest.raises(DefinitionError) as caught:
            type("AlgebraLow", (Capability,), {"a": operation(implies=mid)})
        assert "implication runs in a circle: AlgebraLow.a -> AlgebraMid.b -> AlgebraLow.a; remove one step" in str(
            caught.value
        )
        assert low.implied_by == {"AlgebraLow.a", "AlgebraMid.b"}, "a refused family changes nothing"
        assert mid.implied_by == {"AlgebraMid.b"}


class TestDefine:
    def test_a_family_from_data(self) -> None:
        define("DefineLog", {"note": []})
        made = define(
            "DefineCap",
            {"read": [], "write": ["read"], "admin": ["write", "DefineCap.delete"], "delete": ["DefineLog.note"]},
        )
        assert issubclass(made, Capability)
        assert made.__name__ == "DefineCap"
        assert list(made.__operations__) == ["read", "write", "admin", "delete"]
        assert made.read is made.__operations__["read"]  # type: ignore[attr-defined]
        assert made.__operations__["read"].implied_by == {"DefineCap.read", "DefineCap.write", "DefineCap.admin"}
        assert implied_by("DefineLog.note") == {"DefineLog.note", "DefineCap.delete", "DefineCap.admin"}

    def test_every_fault_is_told_at_once_with_its_fix(self) -> None:
        define("DefineOther", {"note": []})
        with pytest.raises(DefinitionError) as caught:
            define(
                "DefineBad",
                {
                    "read": ["raed", "DefineOhter.note", "DefineOther.nte", ".read"],
                    "write": "read",
                    "__slots__": [],
                    "a": ["b"],
                    "b": ["a"],
                },
            )
        assert caught.value.subject == "capability family DefineBad"
        assert caught.value.faults == (
            "read implies 'raed', but operation 'DefineBad.raed' is not known; did you mean 'read'?",
            "read implies 'DefineOhter.note', but capability family 'DefineOhter' is not known; did you mean 'DefineOther'?",
            "read implies 'DefineOther.nte', but operation 'DefineOther.nte' is not known; did you mean 'note'?",
            caught.value.faults[3],
            "write implies the text 'read'; write a list: ['read']",
            "__slots__: the name cannot be written into a token; begin with an ASCII letter, then letters, digits and '_'",
            "implication runs in a circle: DefineBad.a -> DefineBad.b -> DefineBad.a; remove one step",
        )
        assert caught.value.faults[3].startswith("read implies '.read', but capability family '' is not known; known: ")
        with pytest.raises(DefinitionError, match="'DefineBad': is not known"):
            family("DefineBad")

    def test_a_fault_that_follows_from_another_is_not_told(self) -> None:
        define("DefineKnown", {"note": [], "keep": ["note"]})
        with pytest.raises(DefinitionError) as caught:
            define("DefineKnown", {"note": [], "keep": ["nte"]})
        assert len(caught.value.faults) == 1, "what it would mean is not known, so neither is whether it means the same"

    @pytest.mark.parametrize("name", ["", "a b", "\0", "Ä", "a.b"])
    def test_a_name_that_no_token_takes(self, name: str) -> None:
        with pytest.raises(DefinitionError, match="cannot be written into a token; use ASCII letters") as caught:
            define(name, {})
        assert caught.value.faults[1:] == ("has no operations; declare at least one, such as read",)

    def test_an_operation_that_implies_itself(self) -> None:
        with pytest.raises(DefinitionError, match=r"in a circle: DefineSelf\.a -> DefineSelf\.a; remove"):
            define("DefineSelf", {"a": ["a"]})

    def test_a_circle_through_another_family(self) -> None:
        define("DefineLow", {"a": []})
        define("DefineMid", {"b": ["DefineLow.a"]})
        with pytest.raises(DefinitionError, match=r"in a circle: DefineLow\.a -> DefineMid\.b -> DefineLow\.a; remove"):
            define("DefineLow", {"a": ["DefineMid.b"]})

    def test_one_name_has_one_meaning_however_it_is_made(self) -> None:
        def load() -> type[Capability]:
            class DefineTwice(Capability):
                a = operation()
                b = operation(implies=a)

            return DefineTwice

        first = define("DefineTwice", {"b": ["a"], "a": []})
        second = load()
        define("DefineAbove", {"c": ["DefineTwice.b"]})
        for one in (first, second, family("DefineTwice")):
            assert one.__operations__["a"].implied_by == {"DefineTwice.a", "DefineTwice.b", "DefineAbove.c"}
        with pytest.raises(DefinitionError, match="another family is called DefineTwice"):
            define("DefineTwice", {"a": [], "b": []})

    @given(st.integers(0, 40), st.integers(1, 3), st.integers(0, 3), patterns, patterns)
    def test_it_answers_as_a_class_does(self, number: int, have: int, want: int, held: str, required: str) -> None:
        """Families of the same shape, above another one; the one from data refers to operations that come later in it."""
        drawn = (number * 2654435761) >> 7
        steps = {high: [low for low in range(high) if drawn >> (4 * high + low) & 1] for high in (1, 2, 3)}
        made = {0: operation()}
        type(f"ClassLow{number}", (Capability,), {"x0": made[0]})
        for high, lows in steps.items():
            made[high] = operation(implies=[made[low] for low in lows])
        type(f"ClassHigh{number}", (Capability,), {f"x{high}": made[high] for high in steps})
        define(f"DataLow{number}", {"x0": []})
        names = {index: f"x{index}" for index in steps} | {0: f"DataLow{number}.x0"}
        define(f"DataHigh{number}", {names[high]: [names[low] for low in steps[high]] for high in (3, 2, 1)})

        by_class, by_data = (family(f"{kind}High{number}").__operations__ for kind in ("Class", "Data"))
        for short, op in by_class.items():
            twin = by_data[short]
            assert {name.replace("Class", "Data") for name in op.implied_by} == twin.implied_by
            assert [one.name.replace("Class", "Data") for one in op.implies] == [one.name for one in twin.implies]
        weak = f"High{number}.x{want}" if want else f"Low{number}.x0"
        of_class, of_data = (
            (f"{kind}High{number}.x{have}:{held}", f"{kind}{weak}:{required}") for kind in ("Class", "Data")
        )
        assert implies(*map(grant, of_class)) == implies(*map(grant, of_data))
        told, twin_told = (Capabilities(one).explain(two) for one, two in (of_class, of_data))
        assert str(told).replace("Class", "Data") == str(twin_told)
        mine, other = (Capabilities(*both) for both in (of_class, of_data))
        assert repr(mine.minimal()).replace("Class", "Data") == repr(other.minimal())


class TestFamily:
    def test_finds_a_family(self) -> None:
        assert family("AlgebraDoc") is AlgebraDoc

    def test_names_the_nearest(self) -> None:
        with pytest.raises(DefinitionError) as caught:
            family("AlgebraDocs")
        assert str(caught.value) == "capability family 'AlgebraDocs': is not known; did you mean 'AlgebraDoc'?"


class TestReadGrant:
    @pytest.mark.parametrize("pattern", ["/", "/a/*", "/**", "/{x}/y", "/a/{path...}"])
    def test_is_what_python_writes(self, pattern: str) -> None:
        assert grant(f"AlgebraDoc.read:{pattern}") == AlgebraDoc.read(pattern)

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("AlgebraDoc.reed:/a", "operation 'AlgebraDoc.reed': is not known; did you mean 'read'?"),
            ("AlgebraDocs.read:/a", "capability family 'AlgebraDocs': is not known; did you mean 'AlgebraDoc'?"),
            ("AlgebraDoc.read:a", r"AlgebraDoc.read('a'): it does not start with '/'"),
            ("AlgebraDoc.read:/{a...}/b", r"AlgebraDoc.read('/{a...}/b'): '{a...}' takes a path"),
            (
                "AlgebraDoc.read:/a during calendar x",
                "AlgebraDoc.read('/a during calendar x'): 'a during calendar x' says 'during', and a requirement has no",
            ),
        ],
    )
    def test_refuses_what_is_not_known_and_says_why(self, text: str, fault: str) -> None:
        with pytest.raises(DefinitionError) as caught:
            grant(text)
        assert str(caught.value).startswith(fault)

    @pytest.mark.parametrize("text", ["AlgebraDoc.read", "AlgebraDoc:/a", ""])
    def test_refuses_another_form(self, text: str) -> None:
        with pytest.raises(BadGrantError, match="write it as"):
            grant(text)


class TestGrant:
    def test_is_data(self) -> None:
        grant = AlgebraDoc.read("/a/**")
        assert str(grant) == "AlgebraDoc.read(/a/**)"
        assert grant == AlgebraDoc.read("/a/**")
        assert hash(grant) == hash(AlgebraDoc.read("/a/**"))
        assert grant != AlgebraDoc.read("/a/*")
        assert grant != AlgebraDoc.write("/a/**")
        assert grant != "AlgebraDoc.read(/a/**)"
        with pytest.raises(AttributeError):
            grant.pattern = "/**"  # type: ignore[misc]

    def test_a_scope(self) -> None:
        grant = AlgebraDoc.read("/a/*/**")
        assert not grant.is_template
        assert grant.scope == Scope.parse("/a/*/**")
        assert grant.fields == ()
        assert grant.segments() == ("a", "*", "**")
        assert grant.widest() is grant

    def test_the_root(self) -> None:
        grant = AlgebraDoc.read("/")
        assert (grant.segments(), grant.scope) == ((), Scope.parse("/"))

    def test_a_template(self) -> None:
        grant = AlgebraDoc.read("/{carrier}/x/{rest...}")
        assert grant.is_template
        assert grant.fields == ("carrier", "rest")
        assert grant.segments() == (Field("carrier", path=False), "x", Field("rest", path=True))
        assert grant.widest() == AlgebraDoc.read("/*/x/**")
        with pytest.raises(DefinitionError, match=r"see widest\(\)"):
            _ = grant.scope

    @pytest.mark.parametrize(
        ("pattern", "fault"),
        [
            ("a", "does not start with '/'"),
            ("{a}", "does not start with '/'"),
            ("", "does not start with '/'"),
            ("/a//b", "empty segment"),
            ("/{a}/", "empty segment"),
            ("/../{a}", "the segment '..'"),
            ("/x-{a}", "a field fills a whole segment"),
            ("/{a}{b}", "a field fills a whole segment"),
            ("/{}", "a field fills a whole segment"),
            ("/{a b}", "a field fills a whole segment"),
            ("/{1}", "a field fills a whole segment"),
            ("/{a..}", "a field fills a whole segment"),
            ("/{a...}/b", "takes a path and may stand only at the end"),
            ("/**/{a}", "only at the end"),
            ("/a*", "for a whole segment"),
            ("/%41", "percent-encoding"),
        ],
    )
    def test_refuses_other_patterns_and_says_why(self, pattern: str, fault: str) -> None:
        with pytest.raises(DefinitionError, match=r"AlgebraDoc\.read\(") as caught:
            AlgebraDoc.read(pattern)
        assert fault in str(caught.value)


class TestImplies:
    """The truth table of the docstring, row by row, then the laws."""

    @pytest.mark.parametrize(
        ("held", "required", "answer"),
        [
            (AlgebraDoc.read("/a/**"), AlgebraDoc.read("/a/b"), True),
            (AlgebraDoc.admin("/a/**"), AlgebraDoc.read("/a/b"), True),
            (AlgebraOps.root("/a"), AlgebraDoc.read("/a"), True),
            (AlgebraDoc.admin("/a"), AlgebraDoc.admin("/b"), False),
            (AlgebraDoc.admin("/a"), AlgebraDoc.read("/b"), False),
            (AlgebraDoc.read("/a"), AlgebraDoc.read("/a/**"), False),
            (AlgebraDoc.read("/a/*"), AlgebraDoc.read("/*/b"), False),
            (AlgebraDoc.read("/**"), AlgebraDoc.admin("/a"), False),
            (AlgebraDoc.write("/**"), AlgebraDoc.execute("/a"), False),
            (AlgebraOps.watch("/**"), AlgebraDoc.read("/a"), False),
            (AlgebraDoc.read("/{x}"), AlgebraDoc.read("/a"), False),
            (AlgebraDoc.read("/{x}"), AlgebraDoc.read("/{x}"), False),
            (AlgebraDoc.read("/*"), AlgebraDoc.read("/{x}"), True),
            (AlgebraDoc.read("/a"), AlgebraDoc.read("/{x}"), False),
            (AlgebraDoc.read("/*"), AlgebraDoc.read("/{x...}"), False),
            (AlgebraDoc.admin("/**"), AlgebraDoc.read("/{x...}"), True),
        ],
    )
    def test_truth_table(self, held: Grant, required: Grant, answer: bool) -> None:
        assert implies(held, required) is answer

    @given(grants, grants | templates)
    def test_is_the_same_for_what_a_token_holds(self, held: Grant, required: Grant) -> None:
        by_name = HeldGrant.of(held)
        assert implies(by_name, required) == implies(held, required)
        if not required.is_template:
            assert implies(held, HeldGrant.of(required)) == implies(by_name, HeldGrant.of(required))
            assert implies(held, HeldGrant.of(required)) == implies(held, required)

    @pytest.mark.parametrize("scope", ["/a", "/**"])
    def test_an_operation_that_is_not_known_implies_itself_alone(self, scope: str) -> None:
        unknown = parse_grant(f"NobodyKnows.this:{scope}")
        assert implies(unknown, parse_grant("NobodyKnows.this:/a"))
        assert not implies(unknown, AlgebraDoc.read("/a"))
        assert not implies(AlgebraOps.root("/**"), unknown)

    @given(grants | templates, grants | templates)
    def test_is_total_and_is_operation_and_scope(self, held: Grant, required: Grant) -> None:
        assert implies(held, required) == (
            not held.is_template
            and held.operation.name in HOLDERS[required.operation.name]
            and held.scope.includes(required.widest().scope)
        )

    @given(grants)
    def test_is_reflexive(self, grant: Grant) -> None:
        assert implies(grant, grant)

    @given(grants, grants, grants)
    def test_is_transitive(self, one: Grant, two: Grant, three: Grant) -> None:
        if implies(one, two) and implies(two, three):
            assert implies(one, three)

    @given(grants, grants, patterns)
    def test_is_monotone_in_scope(self, held: Grant, required: Grant, wider: str) -> None:
        if implies(held, required) and Scope.parse(wider).includes(held.scope):
            assert implies(held.operation(wider), required)

    @given(grants, operations, operations)
    def test_keeps_scope(self, held: Grant, one: Operation, other: Operation) -> None:
        if implies(held, one("/q/1")) and not implies(held, other("/q/2")):
            assert held.operation.name not in HOLDERS[other.name] or not held.scope.covers("/q/2")


class TestParseGrant:
    @pytest.mark.parametrize("text", ["FlightCap.report:/UA/**", "_x.y_1:/", "UnknownCap.anything:/a:b/c"])
    def test_prints_what_it_read(self, text: str) -> None:
        assert str(parse_grant(text)) == text

    @pytest.mark.parametrize(
        ("text", "during"),
        [
            ("A.b:/c/** during mon-fri 09:00-17:00 Europe/London", "mon-fri 09:00-17:00 Europe/London"),
            ("A.b:/c d/** during calendar during and not calendar x", "calendar during and not calendar x"),
        ],
    )
    def test_with_a_limit_in_time(self, text: str, during: str) -> None:
        grant = parse_grant(text)
        assert grant.during == When.parse(during)
        assert str(grant) == text
        assert grant != replace(grant, during=None)

    def test_no_scope_reads_as_a_limit(self) -> None:
        for path in ("/a during b", "/a/x during", "/a during /b"):
            with pytest.raises(BadGrantError, match="its scope says 'during'"):
                HeldGrant("A.b", Scope.parse(path))
        assert str(parse_grant("A.b:/during/duringb/b during1")) == "A.b:/during/duringb/b during1"

    def test_is_by_name(self) -> None:
        assert parse_grant("AlgebraDoc.read:/a/*") == HeldGrant.of(AlgebraDoc.read("/a/*"))
        assert parse_grant("AlgebraDoc.read:/a/*") == HeldGrant("AlgebraDoc.read", Scope.parse("/a/*"))
        held = parse_grant("NobodyKnows.this:/**")
        assert HeldGrant.of(held) is held

    def test_a_template_cannot_be_held(self) -> None:
        with pytest.raises(DefinitionError, match="it is a template"):
            HeldGrant.of(AlgebraDoc.read("/{x}"))

    def test_a_name_is_a_name(self) -> None:
        with pytest.raises(BadGrantError, match="not the name of an operation"):
            HeldGrant('x"); right("', Scope.ANY)

    @pytest.mark.parametrize(
        ("text", "fault"),
        [
            ("", "no ':'"),
            ("FlightCap.report", "no ':'"),
            ("FlightCap.report(/UA/**)", "no ':'"),
            ("FlightCap:/UA", "'FlightCap' is not the name of an operation"),
            (":/UA", "'' is not the name of an operation"),
            ("FlightCap.:/UA", "is not the name of an operation"),
            ("FlightCap._x:/UA", "is not the name of an operation"),
            ("a.b.c:/UA", "is not the name of an operation"),
            ("FlightCap.report :/UA", "is not the name of an operation"),
            ("FlightCap.report:UA", "does not start with '/'"),
            ("FlightCap.report:", "does not start with '/'"),
            ("FlightCap.report:/UA*", "for a whole segment"),
            ("FlightCap.report:/{carrier}", "a '{'"),
            ("FlightCap.report:/UA during mon-fry 09:00-17:00 UTC", "after 'during', 'mon-fry' is no day"),
            ("FlightCap.report:/UA during ", "after 'during', it ends where"),
            ("FlightCap.report:/UA during", "its scope says 'during'"),
            ("FlightCap.report during ../..", "no ':'"),
        ],
    )
    def test_one_clear_line(self, text: str, fault: str) -> None:
        with pytest.raises(BadGrantError) as caught:
            parse_grant(text)
        message = str(caught.value)
        assert isinstance(caught.value, PFError)
        assert fault in message
        assert message.startswith(f"grant {text!r}: ")
        assert "write it as 'FlightCap.report:/UA/**'" in message
        assert "\n" not in message


def test_public_reads_well() -> None:
    assert repr(PUBLIC) == "PUBLIC"
