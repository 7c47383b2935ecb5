"""What follows from the session that a worker is told."""

import pytest

from pf_stream.engine import WorkerSettings
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.security import SigningKey, TrustRoots


@pytest.mark.parametrize(("session", "heartbeat", "revoke"), [(10.0, 1.0, 5.0), (2.0, 0.4, 1.0), (60.0, 1.0, 30.0)])
def test_heartbeats_fit_into_the_session_several_times_and_a_revocation_once(
    session: float, heartbeat: float, revoke: float
) -> None:
    roots = TrustRoots.of(SigningKey.generate(1))
    settings = WorkerSettings(ConnectionSettings("nobody.invalid:1"), roots, "w", session_s=session)
    assert (settings.heartbeat_s, settings.revoke_s) == (heartbeat, revoke)
