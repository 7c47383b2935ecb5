"""How commands reach Kafka: flag, environment, the broker of ``pf dev``."""

from pathlib import Path

import pytest
import typer

from pf_stream.cli._options import connection, seconds, utc
from pf_stream.errors import ConfigurationError


class TestConnection:
    def test_the_flag(self) -> None:
        settings = connection("a:1,b:2", {})
        assert (settings.bootstrap_servers, settings.security_protocol) == ("a:1,b:2", "PLAINTEXT")

    def test_without_one_and_without_a_broker_the_usual_port(self, tmp_path: Path) -> None:
        assert connection(None, {"PF_DEV_DATA_DIR": str(tmp_path)}).bootstrap_servers == "127.0.0.1:9092"

    def test_security_from_the_environment(self) -> None:
        settings = connection(
            "a:1",
            {
                "PF_SECURITY_PROTOCOL": "sasl_ssl",
                "PF_SASL_MECHANISM": "scram-sha-512",
                "PF_SASL_USERNAME": "alice",
                "PF_SASL_PASSWORD": "secret",
                "PF_CA_FILE": "ca.pem",
            },
        )
        assert settings.security_protocol == "SASL_SSL"
        assert settings.sasl_mechanism == "SCRAM-SHA-512"
        assert (settings.sasl_username, settings.sasl_password, settings.ca_file) == ("alice", "secret", "ca.pem")
        assert "secret" not in repr(settings)

    def test_an_unknown_protocol_names_the_variable_and_what_is_allowed(self) -> None:
        with pytest.raises(ConfigurationError, match=r"PF_SECURITY_PROTOCOL is 'TLS'; allowed: PLAINTEXT, SSL, SASL"):
            connection("a:1", {"PF_SECURITY_PROTOCOL": "TLS"})

    @pytest.mark.parametrize("missing", ["PF_SASL_USERNAME", "PF_SASL_PASSWORD"])
    def test_a_missing_half_of_the_credentials(self, missing: str) -> None:
        given = {"PF_SECURITY_PROTOCOL": "SASL_SSL", "PF_SASL_USERNAME": "a", "PF_SASL_PASSWORD": "b"}
        del given[missing]
        with pytest.raises(ConfigurationError, match=f"PF_SECURITY_PROTOCOL=SASL_SSL needs {missing}"):
            connection("a:1", given)


class TestSeconds:
    @pytest.mark.parametrize(("text", "value"), [("500ms", 0.5), ("10s", 10), ("5m", 300), ("1h", 3600)])
    def test_durations(self, text: str, value: float) -> None:
        assert seconds(text, "--timeout") == value

    @pytest.mark.parametrize("text", ["10", "s", "-1s", "1.5s", "ten seconds", ""])
    def test_what_is_none(self, text: str) -> None:
        with pytest.raises(typer.BadParameter, match="is not a duration; write it as 500ms, 10s or 5m"):
            seconds(text, "--timeout")


def test_times_are_rfc_3339_in_utc() -> None:
    assert utc(1_767_225_600_001) == "2026-01-01T00:00:00.001Z"
