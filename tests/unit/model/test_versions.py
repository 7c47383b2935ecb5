"""Steps between versions: what a class body may say, and what running them gives."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import pytest
from pydantic_core import from_json

from pf_stream import PUBLIC, DefinitionError, Intent, Key, State, upcast, upgrade
from pf_stream.model.versions import Step, StepError, Steps

Old = dict[str, Any]


class Aircraft(State, version=4):
    """Version 1 had hops, version 2 legs, version 3 a list of both."""

    legs: int = 0
    miles: float = 0.0

    @upgrade(from_version=3)
    @staticmethod
    def _as_fields(old: Old) -> Old:
        legs, miles = old["list"]
        return {"legs": legs, "miles": miles}

    @upgrade(from_version=1)
    @staticmethod
    def _with_legs(old: Old) -> Old:
        old["legs"] = old.pop("hops")
        return old

    @staticmethod
    @upgrade(from_version=2)
    def _as_list(old: Old) -> Old:
        return {"list": [old["legs"], float("inf")]}


class Departed(Intent, name="flights.departed", version=3, requires=PUBLIC):
    """Version 1 is not taken any more."""

    tailnum: Annotated[str, Key]

    @upcast(from_version=2)
    @staticmethod
    def _renamed(old: Old) -> Old:
        return {"tailnum": old["tail"]}


def run(json: bytes, from_version: int) -> Any:
    return from_json(Aircraft.__state__.upgrades.run(json, from_version))


def test_a_chain_from_wherever_it_starts() -> None:
    assert run(b'{"hops":3}', 1) == {"legs": 3, "miles": "Infinity"}
    assert run(b'{"legs":3}', 2) == {"legs": 3, "miles": "Infinity"}
    assert run(b'{"list":[3,1.5]}', 3) == {"legs": 3, "miles": 1.5}
    raw = b'{"legs":1}'
    assert Aircraft.__state__.upgrades.run(raw, 4) is raw


def test_what_it_gives_can_be_read() -> None:
    spec = Aircraft.__state__
    assert spec.decode(spec.upgrades.run(b'{"hops":3}', 1)) == Aircraft(3, float("inf"))


def test_whole_numbers_keep_all_their_digits() -> None:
    number = 2**200 + 1
    assert run(b'{"hops":%d}' % number, 1)["legs"] == number


def test_a_step_is_still_a_static_method() -> None:
    assert Departed._renamed({"tail": "N1"}) == {"tailnum": "N1"}
    assert Aircraft._as_list({"legs": 1}) == {"list": [1, float("inf")]}


def test_which_older_types_an_intent_takes() -> None:
    assert Departed.__intent__.older_types == {"flights.departed.v2": 2}
    assert Departed.__intent__.upcasts.oldest == 2
    assert Aircraft.__state__.upgrades.oldest == 1


def test_a_subclass_has_steps_of_its_own() -> None:
    class Jet(Aircraft, version=2):
        @upgrade(from_version=1)
        @staticmethod
        def _other(old: Old) -> Old:
            return old

    assert len(Jet.__state__.upgrades.functions) == 1


@pytest.mark.parametrize("json", [b"[]", b"3", b"", b"{", b'{"a":"\xff"}'])
def test_what_is_no_object(json: bytes) -> None:
    with pytest.raises(ValueError, match=r"no JSON object|at line 1"):
        run(json, 1)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda old: old["missing"], "raised KeyError"),
        (lambda old: None, "returned NoneType instead of a dict"),
        (lambda old: [old], "returned list instead of a dict"),
        (lambda old: {"a": object()}, "returned what has no JSON form: "),
        (lambda old: {"a": "\ud800"}, "returned what has no JSON form: "),
        (lambda old: old.update(a=old) or old, "returned what has no JSON form: "),
        (lambda old: sys.exit(3), "raised SystemExit"),
    ],
)
def test_a_step_that_goes_wrong_is_named(step: Step, reason: str) -> None:
    def _wrong(old: Old) -> Old:
        return step(old)

    with pytest.raises(StepError) as caught:
        Steps("upgrade", 2, (_wrong,)).run(b'{"a":1}', 1)
    assert caught.value.code == "step_failed"
    assert caught.value.step.endswith("_wrong")
    assert str(caught.value).startswith("upgrade ")
    assert f"_wrong {reason}" in str(caught.value)


# -- what a class body may not say ----------------------------------------------------------------------------------------


def static(mark: Callable[[Step], Step], function: Any = lambda old: old) -> Any:
    return mark(staticmethod(function))


async def later(old: Old) -> Old:
    return old


def in_parts(old: Old) -> Any:
    yield old


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "two for one": (
        {"_a": static(upgrade(from_version=2)), "_b": static(upgrade(from_version=2))},
        "@upgrade(from_version=2) on '_b' and '_a' start at the same version: keep one",
    ),
    "a gap": (
        {"_a": static(upgrade(from_version=1))},
        "has a way from version 1 on but no step from version 2: add @upgrade(from_version=2)",
    ),
    "from the current version": (
        {"_a": static(upgrade(from_version=3))},
        "on '_a', but Bad is version 3: a step leads to a later one, so write version=4, or correct from_version",
    ),
    "from a later version": ({"_a": static(upgrade(from_version=9))}, "so write version=10, or correct from_version"),
    "from nothing": (
        {"_a": static(upgrade(from_version=0))},
        "@upgrade(from_version=0) on '_a': versions are whole numbers from 1",
    ),
    "from a text": (
        {"_a": static(upgrade(from_version="2"))},  # type: ignore[arg-type]
        "on '_a': versions are whole numbers from 1",
    ),
    "async": (
        {"_a": static(upgrade(from_version=2), later)},
        "@upgrade(from_version=2) on '_a' must be a plain function that returns a dict, not async or a generator",
    ),
    "a generator": ({"_a": static(upgrade(from_version=2), in_parts)}, "not async or a generator"),
    "an instance method": (
        {"_a": upgrade(from_version=2)(lambda old: old)},
        "@upgrade(from_version=2) on '_a': write @staticmethod below it, since there is no instance of an older version",
    ),
    "a class method": (
        {"_a": upgrade(from_version=2)(classmethod(lambda cls, old: old))},  # type: ignore[type-var]
        "write @staticmethod below it",
    ),
    "two parameters": (
        {"_a": static(upgrade(from_version=2), lambda self, old: old)},
        "@upgrade(from_version=2) on '_a' must take one parameter, the JSON object of version 2",
    ),
    "of the other kind": (
        {"_a": static(upcast(from_version=2))},
        "'_a': states have @upgrade, intents have @upcast; write @upgrade here",
    ),
}


def fault_of(base: type, namespace: dict[str, Any], **keywords: Any) -> str:
    with pytest.raises(DefinitionError) as caught:
        type(base)("Bad", (base,), {"__module__": __name__, "__qualname__": "Bad", **namespace}, version=3, **keywords)
    (fault,) = caught.value.faults
    return fault


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_a_state(name: str) -> None:
    namespace, expected = FAULTS[name]
    fault = fault_of(State, {**namespace, "__annotations__": {"n": int}, "n": 0})
    assert expected in fault


def test_an_intent_has_the_same_rules() -> None:
    key = {"__annotations__": {"k": Annotated[str, Key]}}
    for namespace, expected in (
        ({"_a": static(upcast(from_version=1))}, "no step from version 2: add @upcast(from_version=2)"),
        ({"_a": static(upgrade(from_version=2))}, "states have @upgrade, intents have @upcast; write @upcast here"),
    ):
        assert expected in fault_of(Intent, {**key, **namespace}, name="a.b", requires=PUBLIC)
