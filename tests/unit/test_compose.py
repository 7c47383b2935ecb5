"""docker-compose.yml, without Docker: it is of the compose schema, and its parts fit each other and this project.

The schema is the one that the check-jsonschema package carries (compose-spec/compose-spec, Apache License 2.0).
"""

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import typer
from ruamel.yaml import YAML

from pf_stream.cli import _build
from pf_stream.kafka.dev.artifacts import load_lock

ROOT = Path(__file__).parent.parent.parent
_pinned = re.compile(r"[a-z0-9./-]+:\d+\.\d+[\w.-]*").fullmatch


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """The file, with its anchors merged."""
    loaded: dict[str, Any] = YAML(typ="safe").load(ROOT / "docker-compose.yml")
    return loaded


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    """Its services, by name."""
    found: dict[str, Any] = compose["services"]
    return found


@pytest.fixture(scope="module")
def validator() -> jsonschema_rs.Validator:
    """Of the compose schema."""
    package = importlib.util.find_spec("check_jsonschema")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "builtin_schemas" / "vendor"
    return jsonschema_rs.validator_for(json.loads((folder / "compose-spec.json").read_text()))


def test_it_is_valid(compose: dict[str, Any], validator: jsonschema_rs.Validator) -> None:
    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(compose)] == []


def test_the_schema_would_find_a_fault(compose: dict[str, Any], validator: jsonschema_rs.Validator) -> None:
    assert not validator.is_valid({**compose, "services": {"kafka": {"imagge": "apache/kafka"}}})


def test_it_has_kafka_a_worker_and_the_command_line(services: dict[str, Any]) -> None:
    assert {"kafka", "worker", "pf", "topics"} <= services.keys()


def test_images_are_pinned(services: dict[str, Any]) -> None:
    images = [service["image"] for service in services.values() if "build" not in service]
    for service in services.values():
        if "build" in service:
            images += re.findall(r"^FROM (\S+)", service["build"]["dockerfile_inline"], re.MULTILINE)
    assert images
    assert [image for image in images if not _pinned(image)] == []


def test_kafka_is_the_version_of_pf_dev(services: dict[str, Any]) -> None:
    assert services["kafka"]["image"] == f"apache/kafka:{load_lock().kafka}"


def test_what_services_wait_for_can_come(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for other, demand in service.get("depends_on", {}).items():
            assert other in services, f"{name} waits for {other}"
            match demand["condition"]:
                case "service_healthy":
                    assert "healthcheck" in services[other], f"{name} waits for the health of {other}"
                case "service_completed_successfully":
                    assert "restart" not in services[other], f"{name} waits for the end of {other}"


def test_the_worker_waits_for_topics_and_keys(services: dict[str, Any]) -> None:
    completed = "service_completed_successfully"
    assert {other for other, on in services["worker"]["depends_on"].items() if on["condition"] == completed} == {
        "topics",
        "keys",
    }


def test_the_worker_cannot_read_the_signing_key(services: dict[str, Any]) -> None:
    assert services["worker"]["volumes"] == ["trust:/trust:ro"]


def test_volumes_are_declared(compose: dict[str, Any], services: dict[str, Any]) -> None:
    used = {volume.partition(":")[0] for service in services.values() for volume in service.get("volumes", ())}
    assert used == compose["volumes"].keys()


def test_ports_are_open_to_this_machine_only(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_kafka_listens_where_its_clients_look(services: dict[str, Any]) -> None:
    kafka = services["kafka"]["environment"]
    listeners = dict(each.split("://") for each in kafka["KAFKA_LISTENERS"].split(","))
    advertised = dict(each.split("://") for each in kafka["KAFKA_ADVERTISED_LISTENERS"].split(","))
    protocols = dict(each.split(":") for each in kafka["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert listeners.keys() == protocols.keys() == advertised.keys() | {kafka["KAFKA_CONTROLLER_LISTENER_NAMES"]}
    for name, address in advertised.items():
        assert address.endswith(listeners[name])
    clients = {
        service["environment"]["PF_BOOTSTRAP_SERVERS"]
        for name, service in services.items()
        if name != "kafka" and "environment" in service
    }
    assert clients == {advertised["INSIDE"]}
    assert advertised["INSIDE"] in services["kafka"]["healthcheck"]["test"]


def _commands(services: dict[str, Any]) -> list[tuple[list[str], dict[str, str]]]:
    """Every ``pf`` command line of the file, those of the comments included, with its environment."""
    found = []
    for service in services.values():
        line = [*service.get("entrypoint", ()), *service.get("command", ())]
        if line[:1] == ["sh"]:
            line = shlex.split(re.split(r"&&|\|\|", line[2])[1])
        if line[:1] == ["pf"] and line != ["pf", "--help"]:
            found.append((line[1:], service.get("environment", {})))
    comments = "".join(
        line.removeprefix("#").rstrip().removesuffix("\\") + ("" if line.rstrip().endswith("\\") else "\n")
        for line in (ROOT / "docker-compose.yml").read_text().splitlines()
        if line.startswith("#")
    )
    lines = re.findall(r"docker compose run --rm pf (?!\.\.\.)(.+)", comments)
    return found + [(shlex.split(line), services["pf"]["environment"]) for line in lines]


def test_commands_are_ones_that_pf_has(services: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    commands = _commands(services)
    assert len(commands) >= 6
    monkeypatch.chdir(ROOT)
    for words, environment in commands:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            _parse(words)


def _parse(words: list[str]) -> None:
    """Parse a command line as ``pf`` would, without running it; raises what it would be refused with."""
    command: Any = typer.main.get_command(_build())
    context: Any = None
    while hasattr(command, "resolve_command"):
        context = command.make_context("pf", list(words), parent=context)
        _, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    command.make_context("pf", list(words), parent=context)


def test_a_command_that_pf_lacks_would_be_found() -> None:
    for line in ("topics creat", "topics create --partition 4 x.yaml", "worker run"):
        with pytest.raises(Exception, match=r"No such|Missing"):  # of typer or of click, as typer's version has it
            _parse(line.split())


def test_files_that_it_names_are_there(services: dict[str, Any]) -> None:
    dockerfile = services["pf"]["build"]["dockerfile_inline"]
    copied = [word for line in re.findall(r"^COPY (.+)", dockerfile, re.MULTILINE) for word in line.split()[:-1]]
    named = [word for service in services.values() for word in service.get("command", ()) if word.endswith(".yaml")]
    for path in (*copied, *named, services["pf"]["environment"]["PF_TOPOLOGY"]):
        assert (ROOT / path).exists(), path
    # What the package's metadata name must be there when it is built.
    assert {"pyproject.toml", "README.md", "LICENSE"} <= set(copied)
