"""Intents: what a class statement may say, and what a payload may."""

import dataclasses
import types
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from pf_stream import PUBLIC, Capability, DefinitionError, Intent, Key, operation
from pf_stream.model import IntentSpec
from pf_stream.model.versions import Steps


class DocCap(Capability):
    """What may be done with documents."""

    read = operation()
    write = operation(implies=read)


class Write(Intent, name="docs.write", version=3, requires=DocCap.write("/{folder}/{name}"), topic="writes"):
    """Write a document."""

    name: Annotated[str, Key]
    folder: str
    text: str = ""
    size: float = 0.0


class Page(Intent, name="docs.page", requires=[DocCap.read("/shelf"), DocCap.write("/{book}")]):
    """Two key fields, one of them a number."""

    book: Annotated[str, Key]
    page: Annotated[int, Key]


class Hit(Intent, name="docs.hit", requires=PUBLIC):
    """One key field, a number."""

    page: Annotated[int, Key]


def faults(**keywords: Any) -> list[str]:
    """What is said of a class with these keywords and a good body."""
    given: dict[str, Any] = {"name": "a.b", "requires": PUBLIC, **keywords}
    with pytest.raises(DefinitionError) as caught:

        class Bad(Intent, **given):
            key: Annotated[str, Key]

    assert caught.value.subject.endswith(".Bad")
    return [*caught.value.faults]


def test_what_a_class_statement_says_is_its_spec() -> None:
    spec = Write.__intent__
    assert spec == IntentSpec(
        name="docs.write",
        version=3,
        requires=(DocCap.write("/{folder}/{name}"),),
        key_fields=("name",),
        topic="writes",
        model=Write,
        decode=spec.decode,
        encode=spec.encode,
        key_of=spec.key_of,
        upcasts=Steps("upcast", 3),
        once_ms=None,
    )
    assert spec.type == "docs.write.v3"


@pytest.mark.parametrize("pattern", ["/", "/a", "/{name}", "/{name...}", "/a/{folder}/{name...}"])
def test_one_resource_may_be_required_by_name_or_by_fields(pattern: str) -> None:
    class Good(Intent, name="docs.good", requires=DocCap.read(pattern)):
        name: Annotated[str, Key]
        folder: str

    assert Good.__intent__.requires == (DocCap.read(pattern),)


def test_defaults() -> None:
    spec = Hit.__intent__
    assert (spec.version, spec.requires, spec.topic) == (1, (), "intents")
    assert [str(grant) for grant in Page.__intent__.requires] == ["DocCap.read(/shelf)", "DocCap.write(/{book})"]


class TestKeys:
    def test_one_field_is_its_text(self) -> None:
        assert Write.__intent__.key_of(Write(name="ü/x", folder="f")) == "ü/x".encode()

    def test_a_number_is_its_digits(self) -> None:
        assert Hit.__intent__.key_of(Hit(page=-7)) == b"-7"

    def test_several_fields_are_an_array(self) -> None:
        assert Page.__intent__.key_of(Page(book='a"b', page=7)) == rb'["a\"b","7"]'

    @given(st.tuples(st.text(), st.integers()), st.tuples(st.text(), st.integers()))
    def test_different_fields_have_different_keys(self, one: tuple[str, int], other: tuple[str, int]) -> None:
        def key(of: tuple[str, int]) -> bytes:
            return Page.__intent__.key_of(Page(book=of[0], page=of[1]))

        assert (key(one) == key(other)) == (one == other)

    def test_they_are_in_the_order_of_the_fields(self) -> None:
        assert Page.__intent__.key_fields == ("book", "page")


class TestFaults:
    def test_no_requirement(self) -> None:
        assert faults(requires=None) == [
            "declares no requirement: add requires=SomeCap.operation('/scope') or, if anybody may send it, requires=PUBLIC"
        ]

    @pytest.mark.parametrize("requires", ["x", DocCap, DocCap.read, [], (), [DocCap.read("/"), "x"], 0])
    def test_a_requirement_that_is_none(self, requires: object) -> None:
        (fault,) = faults(requires=requires)
        assert fault == f"requires={requires!r} is no capability: write SomeCap.operation('/scope') or PUBLIC"

    def test_a_field_that_is_not_there(self) -> None:
        assert faults(requires=DocCap.read("/{kee}")) == [
            "requires DocCap.read(/{kee}), but has no field 'kee'; did you mean 'key'?"
        ]

    @pytest.mark.parametrize(
        ("pattern", "wildcard", "hole"),
        [
            ("/**", "**", "{field...}"),
            ("/a/**", "**", "{field...}"),
            ("/*/a", "*", "{field}"),
            ("/{key}/**", "**", "{field...}"),
        ],
    )
    def test_a_wildcard_that_nothing_fills(self, pattern: str, wildcard: str, hole: str) -> None:
        (fault,) = faults(requires=[DocCap.read("/a"), DocCap.write(pattern)])
        assert fault == (
            f"requires DocCap.write({pattern}), but an intent is about one resource and nothing fills '{wildcard}': "
            f"write a field of the intent in its place, such as {hole}, or name one resource"
        )

    def test_a_field_that_is_no_text(self) -> None:
        with pytest.raises(DefinitionError) as caught:

            class Bad(Intent, name="a.b", requires=DocCap.read("/{page}")):
                page: Annotated[int, Key]

        assert caught.value.faults == (
            "requires DocCap.read(/{page}), so field 'page' must be a str, not <class 'int'>",
        )

    @pytest.mark.parametrize("name", ["", "A.b", "a..b", "a b", ".a", "a.", "1a", "a-b", "é"])
    def test_a_name_of_another_form(self, name: str) -> None:
        assert faults(name=name) == [f"name {name!r} must be dotted lower case, such as 'flights.departed'"]

    def test_no_name(self) -> None:
        assert faults(name=None) == ['has no name: write class Bad(Intent, name="domain.happened", ...)']

    @pytest.mark.parametrize("version", [0, -1])
    def test_a_version_before_the_first(self, version: int) -> None:
        assert faults(version=version) == [f"version {version} must be 1 or more"]

    @pytest.mark.parametrize("topic", ["", ".", "a b", "ä", "a/b", "x" * 250])
    def test_a_topic_that_kafka_does_not_take(self, topic: str) -> None:
        assert faults(topic=topic) == [f"topic {topic!r} is not a Kafka topic name"]

    @pytest.mark.parametrize(
        ("keyword", "hint"),
        [
            ("require", "; did you mean 'requires'?"),
            ("zzz", "; known: constraints, name, once, requires, topic, version"),
        ],
    )
    def test_an_unknown_keyword(self, keyword: str, hint: str) -> None:
        assert faults(**{keyword: 1}) == [f"unknown class keyword {keyword!r}{hint}"]

    def test_no_key(self) -> None:
        with pytest.raises(DefinitionError) as caught:

            class Bad(Intent, name="a.b", requires=PUBLIC):
                title: str
                text: str

        assert caught.value.faults == (
            "has no key: mark the field that state is kept by, such as title: Annotated[str, Key]",
        )

    @pytest.mark.parametrize(
        ("annotation", "shown"), [(float, "float"), (bool, "bool"), (bytes, "bytes"), (str | None, "str | None")]
    )
    def test_a_key_that_has_no_one_text(self, annotation: Any, shown: str) -> None:
        with pytest.raises(DefinitionError) as caught:
            types.new_class(
                "Bad",
                (Intent,),
                {"name": "a.b", "requires": PUBLIC},
                lambda body: body.update(__annotations__={"key": Annotated[annotation, Key]}, __module__=__name__),
            )
        assert caught.value.faults == (f"key field 'key' must be a str or an int, not {shown}",)

    def test_a_type_that_is_not_known_yet(self) -> None:
        with pytest.raises(DefinitionError, match="not known where the class is made"):

            class Bad(Intent, name="a.b", requires=PUBLIC):
                key: Annotated[str, Key]
                later: "Later"  # type: ignore[name-defined]  # noqa: F821 - that is the point

    def test_all_of_them_in_one_error(self) -> None:
        with pytest.raises(DefinitionError) as caught:

            class Bad(Intent, name="Bad", version=0, requires=DocCap.read("/{nmae}"), topic="a b", colour=1):
                name: str

        assert str(caught.value).startswith("intent tests.unit.model.test_intent.TestFaults.")
        assert str(caught.value).splitlines()[0].endswith(".Bad has 6 faults:")
        assert str(caught.value).splitlines()[1:] == [
            "  - unknown class keyword 'colour'; known: constraints, name, once, requires, topic, version",
            "  - name 'Bad' must be dotted lower case, such as 'flights.departed'",
            "  - version 0 must be 1 or more",
            "  - topic 'a b' is not a Kafka topic name",
            "  - requires DocCap.read(/{nmae}), but has no field 'nmae'; did you mean 'name'?",
            "  - has no key: mark the field that state is kept by, such as name: Annotated[str, Key]",
        ]

    def test_a_subclass_says_everything_anew(self) -> None:
        """It would else be the same type with another payload."""
        with pytest.raises(DefinitionError) as caught:

            class Bad(Write):
                pass

        assert len(caught.value.faults) == 2


class TestPayload:
    def test_round_trip(self) -> None:
        write = Write(name="n", folder="f", text="ü", size=float("inf"))
        assert Write.__intent__.decode(Write.__intent__.encode(write)) == write

    def test_what_is_not_declared_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
            Write(name="n", folder="f", colour="red")  # type: ignore[call-arg]

    def test_it_does_not_change(self) -> None:
        write = Write(name="n", folder="f")
        with pytest.raises(ValidationError, match="Instance is frozen"):
            write.folder = "g"  # type: ignore[misc]

    def test_bytes_survive(self) -> None:
        class Blob(Intent, name="docs.blob", requires=PUBLIC):
            key: Annotated[str, Key]
            data: bytes

        blob = Blob(key="k", data=b"\xff\x00")
        assert Blob.__intent__.decode(Blob.__intent__.encode(blob)) == blob

    def test_models_within_are_validated(self) -> None:
        class Line(BaseModel):
            number: int

        class Bill(Intent, name="docs.bill", requires=PUBLIC):
            key: Annotated[str, Key]
            lines: tuple[Line, ...]

        bill = Bill.__intent__.decode(b'{"key":"k","lines":[{"number":1}]}')
        assert bill == Bill(key="k", lines=(Line(number=1),))
        with pytest.raises(ValidationError, match="number"):
            Bill.__intent__.decode(b'{"key":"k","lines":[{"number":"x"}]}')


def test_a_spec_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Write.__intent__.version = 4  # type: ignore[misc]
