"""What a worker does on its own with lanes that it waits for."""

import asyncio
from typing import Any, cast

from pf_stream.engine.lanes import Lanes


def test_a_worker_that_was_paused_while_it_waited_asks_the_group() -> None:
    """The lane may have another owner by now: who acquires last has it, so it must not acquire on its own accord."""

    async def work() -> int:
        asked = 0

        def rejoin() -> None:
            nonlocal asked
            asked += 1

        loop = asyncio.get_running_loop()
        lanes = Lanes([], cast("Any", None), cast("Any", None), {}, rejoin, 5.0)
        lanes._waiting["intents", 0] = loop.call_later(1000, lambda: None)
        lanes._open_again(("intents", 0), loop.time() - 6)
        assert lanes._waiting == {}
        assert lanes._opening == {}
        return asked

    assert asyncio.run(work()) == 1
