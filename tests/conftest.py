"""What all tests have in common."""

import gc
import os
import secrets
import signal
from contextlib import ExitStack

import pytest
from hypothesis import HealthCheck, is_hypothesis_test, settings

# How long an example takes is the machine's affair: on a busy one, that a test fails must not hang on it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("few examples", settings.get_profile("any machine"), max_examples=12)
settings.load_profile("any machine")

pytest.register_assert_rewrite("tests.commit_contract")

gc.disable()  # until all is collected

# Whoever runs the tests in the background has SIGINT ignored, and so would every process that a test starts and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A broker that lives for seconds is never worth what the optimising compiler takes for it: a third of its time.
os.environ.setdefault("PF_DEV_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def bootstrap_servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A real Kafka: the one that ``PF_BOOTSTRAP_SERVERS`` names, else one for all processes of this run."""
    given = os.environ.get("PF_BOOTSTRAP_SERVERS")
    if given:
        return given
    from tests.shared_broker import shared_broker

    folder = tmp_path_factory.getbasetemp()
    stack = ExitStack()
    servers = stack.enter_context(shared_broker(folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder))
    # Who has started it waits for the others, for longer than the teardown of a test may take.
    request.config.add_cleanup(stack.close)
    return servers


@pytest.fixture
def unique() -> str:
    """A prefix for names of topics, groups and transactional ids that no other test has: letters and digits."""
    return "t" + secrets.token_hex(5)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Few examples are few for those tests too that say how many they want, which would overrule a profile; and few seeds."""
    if settings.get_current_profile_name() != "few examples":
        return
    few = settings.get_profile("few examples").max_examples
    config.hook.pytest_deselected(items=[item for item in items if _seed(item) >= few])
    items[:] = [item for item in items if _seed(item) < few]
    for item in items:
        if isinstance(item, pytest.Function) and is_hypothesis_test(item.obj):
            test = getattr(item.obj, "__func__", item.obj)
            # The settings are where hypothesis's own plugin finds and replaces them.
            wanted = test._hypothesis_internal_use_settings
            test._hypothesis_internal_use_settings = settings(wanted, max_examples=min(wanted.max_examples, few))


def _seed(item: pytest.Item) -> int:
    callspec = getattr(item, "callspec", None)
    return 0 if callspec is None else int(callspec.params.get("seed", 0))


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not walk through it after every few tests."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
