"""What is said of periods where they are declared, and how figures are read. What is counted is in the scenarios (S35)."""

import math
from typing import Annotated

import pytest

from pf_stream import PUBLIC, DefinitionError, Intent, Key
from pf_stream.model import Calendar, When
from pf_stream.temporal import Figures, analytics

OFFICE = Calendar([When.parse("mon-fri 09:00-17:00 UTC")], "UTC")


class Work(Intent, name="analytics.work", requires=PUBLIC):
    desk: Annotated[str, Key]


def test_of_nothing() -> None:
    assert math.isnan(Figures().mean_ms)
    assert math.isnan(Figures().success_rate)


@pytest.mark.parametrize(
    ("periods", "otherwise", "fault"),
    [
        ({"Business": OFFICE}, "else", "period 'Business' must be lower case"),
        ({"b" * 26: OFFICE}, "else", "at most 25"),
        ({"business": OFFICE}, "after hours", "period 'after hours' must be"),
        ({"business": OFFICE}, "business", "is one of the periods"),
        ({"business": "mon-fri"}, "else", "a window such as 09:00-17:00"),
        ({"business": "calendar offcie"}, "else", "no calendar 'offcie'; did you mean 'office'?"),
        ({"business": "calendar office and sun 00:00-24:00 UTC"}, "else", "period 'business' never comes"),
        ({"business": "mon 09:00-10:00 UTC and tue 09:00-10:00 UTC"}, "else", "no time is left"),
    ],
)
def test_what_is_wrong_is_said(periods: dict[str, str | Calendar], otherwise: str, fault: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        analytics(
            "work", Work, operation=lambda _: "w", periods=periods, otherwise=otherwise, calendars={"office": OFFICE}
        )
    assert fault in str(caught.value)
