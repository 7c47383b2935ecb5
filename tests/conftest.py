"""What all tests have in common."""

import signal

import pytest

pytest.register_assert_rewrite("tests.commit_contract")

# Whoever runs the tests in the background has SIGINT ignored, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
