"""Tests that need a Docker engine run only when asked for: ``pytest -m docker``."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip them otherwise, with the reason, so that it shows in the summary of every run."""
    if "docker" in config.getoption("markexpr"):
        return
    for item in items:
        if item.get_closest_marker("docker"):
            item.add_marker(pytest.mark.skip(reason="needs a Docker engine; where there is one: pytest -m docker"))
