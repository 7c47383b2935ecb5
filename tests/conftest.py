"""What all tests have in common."""

import signal

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair: on a busy one, that a test fails must not hang on it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

pytest.register_assert_rewrite("tests.commit_contract")

# Whoever runs the tests in the background has SIGINT ignored, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
