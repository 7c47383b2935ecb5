"""Named rules."""

from typing import Any

import pytest

from pf_stream.errors import DefinitionError
from pf_stream.model.callers import Caller
from pf_stream.model.rules import Rule, find_rule, rule


@rule("test.yes")
def yes(intent: Any, caller: Caller) -> bool:
    """Always."""
    return True


def test_is_known_by_name_and_called_as_it_was_written() -> None:
    assert isinstance(yes, Rule)
    assert find_rule("test.yes") is yes
    assert yes(None, Caller()) is True
    assert str(yes) == "rule test.yes"


def test_a_module_may_be_loaded_twice() -> None:
    again = rule("test.yes")(yes.function)
    assert find_rule("test.yes") is again


def test_one_name_has_one_meaning() -> None:
    with pytest.raises(DefinitionError, match=r"tests\.unit\.model\.test_rules:yes has that name; choose another"):
        rule("test.yes")(lambda *_: False)
    assert find_rule("test.yes")(None, Caller()) is True


@pytest.mark.parametrize("name", ["", "Yes", "a b", "a.", ".a", "a..b", "a\n"])
def test_a_name_is_a_name(name: str) -> None:
    with pytest.raises(DefinitionError, match="dotted lower case"):
        rule(name)


def test_an_unknown_one() -> None:
    with pytest.raises(DefinitionError, match=r"is its module imported\?; did you mean 'test.yes'"):
        find_rule("test.yess")
