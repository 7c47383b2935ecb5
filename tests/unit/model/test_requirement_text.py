"""Requirements as text: what each form means, and every way in which it can be wrong."""

import pytest

from pf_stream import all_of, any_of, caller, during, rule
from pf_stream.errors import DefinitionError
from pf_stream.model import Caller, Intent, Requirement, define
from pf_stream.model.capability import BadGrantError
from pf_stream.model.requirement import parse_requirement

TextCap = define("TextCap", {"read": [], "write": ["read"]})
write = TextCap.__operations__["write"]


@rule("text.own_folder")
def own_folder(intent: Intent, caller: Caller) -> bool:
    return True


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("TextCap.write:/", write("/")),
        ("TextCap.write:/{carrier}/{path...}", write("/{carrier}/{path...}")),
        ("TextCap.write:/my folder/{file}", write("/my folder/{file}")),
        ("during mon-fri 09:00-17:00 Europe/London", during("mon-fri 09:00-17:00 Europe/London")),
        (
            "during not calendar office and daily 10:00-12:00 UTC",
            during("not calendar office and daily 10:00-12:00 UTC"),
        ),
        ("rule text.own_folder", own_folder),
        ("caller subject={owner}", caller(subject="{owner}")),
        ("caller tenant=acme and session={session}", caller(tenant="acme", session="{session}")),
        ("caller attribute role=pilot", caller(attributes={"role": "pilot"})),
        ("caller attribute role=pilot and attribute base=a=b", caller(attributes={"role": "pilot", "base": "a=b"})),
        ("caller authenticated within 15m", caller(authenticated_within="15m")),
        (
            "caller subject=ann and authenticated within 15m",
            caller(subject="ann", authenticated_within="15m"),
        ),
    ],
)
def test_each_form(text: str, meant: Requirement) -> None:
    assert parse_requirement(text) == meant


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("durng mon-fri 09:00-17:00 UTC", "'durng' begins no requirement; did you mean 'during'?"),
        ("subject {owner}", "'subject' begins no requirement; known: caller, during, rule; a grant is written as"),
        ("TextCap.wriet:/", "operation 'TextCap.wriet': is not known; did you mean 'write'?"),
        ("TxtCap.write:/", "capability family 'TxtCap': is not known; did you mean 'TextCap'?"),
        ("TextCap.write:/{a}b", "a field fills a whole segment"),
        ("during", "it ends where it should have"),
        ("during lunch", "it ends where it should have a window"),
        (
            "rule text.own_fodler",
            "rule 'text.own_fodler': there is none; is its module imported?; did you mean 'text.own_",
        ),
        ("rule", "rule '': there is none"),
        ("caller", "asks nothing: name a subject"),
        (
            "caller sbject=ann",
            "'sbject=ann' is none of subject=X, tenant=X, session=X, attribute NAME=X and authenticated",
        ),
        ("caller subject=", "'subject=' is none of"),
        ("caller subject=ann tenant=acme", "'subject=ann tenant=acme' is none of"),
        ("caller subject=ann and subject=bob", "subject is said twice; keep one"),
        ("caller attribute=pilot", "'attribute=pilot' is none of"),
        ("caller subject={own-er}", "subject '{own-er}': a field fills all of it; write '{field}'"),
        ("caller subject=/{owner}", "subject '/{owner}': a field fills all of it"),
        ("caller authenticated within 15", "authenticated_within='15' must be a number and a unit"),
    ],
)
def test_what_means_nothing(text: str, said: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_requirement(text)
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["", "PUBLIC", "write:/", "TextCap.write"])
def test_what_is_no_grant(text: str) -> None:
    with pytest.raises(BadGrantError, match=r"write it as 'FlightCap.report:/UA/\*\*'"):
        parse_requirement(text)


def test_all_faults_of_a_caller_are_told_at_once() -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_requirement("caller sbject=ann and tenant=a and tenant=b")
    assert len(caught.value.faults) == 2


def test_what_is_printed() -> None:
    assert str(parse_requirement("TextCap.write:/{carrier}")) == "TextCap.write(/{carrier})"
    assert str(any_of(write("/"), all_of(write("/a"), caller(subject="{o}")))) == (
        "(TextCap.write(/) or (TextCap.write(/a) and caller's subject is {o}))"
    )
