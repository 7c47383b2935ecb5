"""Windows as data: all that a form says is in the window that it means."""

from typing import Any

import pytest

from pf_stream.streams import counted, global_window, hopping, session, sliding, tumbling
from pf_stream.streams.form import WindowForm
from pf_stream.streams.windows import Window


def full(value: object) -> bool:
    return bool(value)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            {"tumbling": "1h", "offset": "5m", "bound": "1m", "grace": "2m"},
            tumbling("1h", offset="5m", bound="1m", grace="2m"),
        ),
        (
            {"hopping": "1h", "every": "10m", "offset": "5m", "bound": "1m", "grace": "2m"},
            hopping("1h", every="10m", offset="5m", bound="1m", grace="2m"),
        ),
        ({"hopping": "1h", "every": "10m", "clock": "processing"}, hopping("1h", every="10m", clock="processing")),
        ({"tumbling": "1h", "clock": "processing"}, tumbling("1h", clock="processing")),
        ({"sliding": "1h", "bound": "1m"}, sliding("1h", bound="1m")),
        ({"sliding": "1h", "clock": "processing"}, sliding("1h", clock="processing")),
        ({"session": "1h", "bound": "1m"}, session("1h", bound="1m")),
        ({"session": "1h", "clock": "processing"}, session("1h", clock="processing")),
        ({"counted": 3}, counted(3)),
        (
            {"global": {"records": 2, "every": "1h", "when": "module:full", "purge": True}},
            global_window(records=2, every="1h", when=full, purge=True),
        ),
    ],
)
def test_a_window_is_what_its_form_says(said: dict[str, Any], meant: Window) -> None:
    asked: list[tuple[Any, str]] = []

    def resolve(place: Any, reference: str) -> Any:
        asked.append((place, reference))
        return full

    form = WindowForm.model_validate({"window": said})
    assert form.window.window(resolve) == meant
    assert asked == ([(("window", "global", "when"), "module:full")] if "global" in said else [])


def test_defaults_are_those_of_python() -> None:
    for said, meant in (
        ({"tumbling": "1h"}, tumbling("1h")),
        ({"hopping": "1h", "every": "10m"}, hopping("1h", every="10m")),
        ({"sliding": "1h"}, sliding("1h")),
        ({"session": "1h"}, session("1h")),
        ({"global": {"records": 2}}, global_window(records=2)),
    ):
        assert WindowForm.model_validate({"window": said}).window.window(lambda *_: None) == meant
