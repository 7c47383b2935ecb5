"""What happens to workers, brokers and connections, as the dice have it."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from confluent_kafka.admin import AdminClient

from pf_stream.kafka.dev import DevCluster
from tests.chaos._proxy import Direction, Proxy
from tests.chaos.campaign._fleet import Fleet

__all__ = ["Nemesis"]

SILENCE_S = 20.0

Action = Callable[[random.Random], None]


class Nemesis:
    """Two threads: one is after the workers, one after brokers and connections.

    Each takes its actions in an order that its seed shuffles, every one of them once before any comes again.
    """

    def __init__(
        self,
        seed: int,
        fleet: Fleet,
        cluster: DevCluster,
        proxies: Sequence[Proxy],
        *,
        topic: str,
        session_s: float,
        silence: bool,
        say: Callable[[str], None],
    ) -> None:
        self._seed = seed
        self._fleet = fleet
        self._cluster = cluster
        self._proxies = proxies
        self._topic = topic
        self._session_s = session_s
        self._silence = silence
        self._say = say
        self._over = threading.Event()
        self.done: Counter[str] = Counter()
        """How often each action was taken."""
        self.failures: list[BaseException] = []
        """What should not have happened to the nemesis itself."""

    def run(self, seconds: float) -> None:
        """Do harm for so long, then put everything right again."""
        workers: Mapping[str, Action] = {
            "worker killed": self._kill_worker,
            "worker paused": self._pause_worker,
            "worker drained": self._drain_worker,
            "worker added and removed": self._add_worker,
        }
        others: dict[str, Action] = {
            "broker killed": self._kill_broker,
            "connections cut": self._cut,
            "connections refused": self._refuse,
            "bytes delayed": self._delay,
            "half closed": self._half_close,
        }
        if len(self._cluster.nodes) > 1:
            others["leader killed"] = self._kill_leader
        if self._silence:
            others["silence"] = self._be_silent
        threads = [
            threading.Thread(target=self._act, args=(name, actions), name=f"nemesis of {name}")
            for name, actions in (("workers", workers), ("brokers", others))
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + seconds
        while not self.failures and time.monotonic() < deadline:
            time.sleep(0.2)
        self._over.set()
        for thread in threads:
            thread.join()
        if self.failures:
            raise self.failures[0]

    def _act(self, name: str, actions: Mapping[str, Action]) -> None:
        dice = random.Random(f"{self._seed} {name}")  # noqa: S311 - it must be repeatable
        bag: list[str] = []
        try:
            while not self._over.wait(dice.uniform(0.5, 3)):
                if not bag:
                    bag = sorted(actions)
                    dice.shuffle(bag)
                action = bag.pop()
                self.done[action] += 1
                actions[action](dice)
                self._fleet.check()
        except BaseException as error:  # noqa: BLE001 - it is raised in the thread that waits
            self.failures.append(error)

    # -- workers -------------------------------------------------------------------------------------------------------

    def _kill_worker(self, dice: random.Random) -> None:
        name = dice.choice(self._fleet.names)
        self._say(f"kill {name}")
        self._fleet.kill(name)
        time.sleep(dice.choice([0, dice.uniform(0, self._session_s), self._session_s + 2]))
        self._start(name)

    def _pause_worker(self, dice: random.Random) -> None:
        name = dice.choice(self._fleet.names)
        seconds = self._session_s + dice.uniform(0.5, 4)
        self._say(f"stop {name} for {seconds:.1f} s")
        self._fleet.pause(name)
        time.sleep(seconds)
        self._fleet.resume(name)

    def _drain_worker(self, dice: random.Random) -> None:
        name = dice.choice(self._fleet.names)
        self._say(f"drain {name}")
        self._fleet.drain(name)
        self._start(name)

    def _add_worker(self, dice: random.Random) -> None:
        name = f"guest{self.done['worker added and removed']}"
        self._say(f"add {name}")
        self._start(name)
        time.sleep(dice.uniform(0, 4))
        self._say(f"remove {name}")
        self._fleet.drain(name)

    def _start(self, name: str) -> None:
        """Start a worker and wait until it is ready, or until there was time enough for that."""
        self._fleet.start(name)
        deadline = time.monotonic() + 10
        while not self._fleet.is_ready(name) and time.monotonic() < deadline and not self._over.is_set():
            time.sleep(0.1)

    # -- brokers and connections ---------------------------------------------------------------------------------------

    def _kill_broker(self, dice: random.Random) -> None:
        self._kill(dice.choice(self._cluster.nodes), dice)

    def _kill_leader(self, dice: random.Random) -> None:
        admin = AdminClient({"bootstrap.servers": self._cluster.bootstrap_servers, "log_level": 0})
        leader = admin.list_topics(self._topic, timeout=20).topics[self._topic].partitions[0].leader
        self._kill(leader if leader in self._cluster.nodes else 1, dice)

    def _kill(self, node: int, dice: random.Random) -> None:
        self._say(f"kill broker {node}")
        self._cluster.kill(node)
        time.sleep(dice.uniform(0, 6))
        self._cluster.start(node)
        self._say(f"broker {node} is back")

    def _cut(self, dice: random.Random) -> None:
        self._say("cut connections")
        for _ in range(dice.randrange(1, 4)):
            for proxy in self._some(dice):
                proxy.cut()
            time.sleep(dice.uniform(0, 0.5))

    def _refuse(self, dice: random.Random) -> None:
        self._trouble(dice, "refuse connections", Proxy.refuse, dice.uniform(1, 6))

    def _delay(self, dice: random.Random) -> None:
        held = dice.uniform(0.02, 0.3)
        self._trouble(dice, f"delay bytes by {held:.2f} s", lambda proxy: proxy.delay(held), dice.uniform(2, 8))

    def _half_close(self, dice: random.Random) -> None:
        direction = dice.choice(list(Direction))
        self._trouble(
            dice, f"hold bytes {direction}", lambda proxy: proxy.hold(direction), dice.uniform(1, 8), cut=True
        )

    def _be_silent(self, dice: random.Random) -> None:
        self._trouble(dice, "silence", Proxy.hold, SILENCE_S)

    def _trouble(
        self, dice: random.Random, what: str, begin: Callable[[Proxy], None], seconds: float, *, cut: bool = False
    ) -> None:
        proxies = self._some(dice)
        self._say(f"{what} for {seconds:.1f} s, {len(proxies)} of {len(self._proxies)} brokers")
        for proxy in proxies:
            begin(proxy)
        time.sleep(seconds)
        for proxy in proxies:
            if cut:
                proxy.cut()  # what was held never arrives
            proxy.heal()

    def _some(self, dice: random.Random) -> Sequence[Proxy]:
        """One of them, or all."""
        return self._proxies if dice.random() < 0.5 else [dice.choice(self._proxies)]
