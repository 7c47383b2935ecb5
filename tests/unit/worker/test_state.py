"""State as it is asked for over HTTP: lanes that are real, a server that is, and nothing of Kafka."""

import http.client
import json
import time
from base64 import b64decode
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pf_stream.components import registry
from pf_stream.core import partition_of
from pf_stream.core.changelog import pack_entry_key, pack_name, pack_state, state_key, state_prefix
from pf_stream.core.status import LaneState
from pf_stream.engine.lanes import Lanes
from pf_stream.kafka.errors import KafkaUnavailableError
from pf_stream.security import SigningKey, attenuate
from pf_stream.worker import _turns
from tests.hostile.attempts import attempts_by_theme
from tests.hostile.scene import ROOTS as HOSTILE_ROOTS
from tests.hostile.scene import Scene
from tests.unit.core.kit import NOW_MS, Ping, Put, record
from tests.unit.core.test_reading import ROOTS
from tests.unit.security import cases
from tests.unit.worker.site import ALL, HERE, Site, Told, component, lane_status, name_in, read_body, token

B1 = token("StateCap.read:/boxes/b1")


@pytest.fixture(scope="module")
def alone() -> Iterator[Site]:
    """A worker with all there is."""
    worker = Site("w0")
    with worker.served():
        yield worker


@pytest.fixture
def site(alone: Site) -> Site:
    """It has one lane, and some boxes."""
    alone.reset()
    puts = Put(box="b1", item="hat"), Put(box="b2"), Put(box="b1", item="\u2028")
    alone.open().commit_all(*(record(offset, put) for offset, put in enumerate(puts)))
    return alone


@pytest.fixture(scope="module")
def three() -> Iterator[Site]:
    worker = Site("w0", partitions=3)
    with worker.served():
        yield worker


@pytest.fixture
def full(three: Site) -> Site:
    """A worker with three lanes, and ten boxes in each."""
    three.reset()
    for number in range(3):
        three.open(number).commit_all(*(record(n, Ping(box=name_in(number, 3, n))) for n in range(10)))
    return three


@pytest.fixture(scope="module")
def two() -> Iterator[tuple[Site, Site]]:
    sites = Site("w0", partitions=2), Site("w1", partitions=2)
    with sites[0].served(), sites[1].served():
        yield sites


@pytest.fixture
def pair(two: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch) -> tuple[Site, Site]:
    """Two workers, each with one of two lanes."""
    monkeypatch.setattr(registry, "FRESH_S", -1)
    for number, worker in enumerate(two):
        worker.reset()
        worker.open(number).commit_all(record(0, Ping(box=name_in(number, 2))))
    for worker in two:
        worker.known = [one.component(number) for number, one in enumerate(two)]
    return two


BOX = {"items": ["hat", "\u2028"], "weight": 2, "anything": []}


class TestOne:
    def test_a_state(self, site: Site) -> None:
        told = site.get("b1", B1)
        assert told.body == {
            "reactor": "boxes",
            "key": "b1",
            "version": 1,
            "state": BOX,
            "partition": 0,
            "worker": "w0",
        }
        assert told.status == 200
        assert told.headers["cache-control"] == "no-store"

    def test_of_each_reactor_its_own(self, site: Site) -> None:
        assert site.get("b1", reactor="watch").body["state"]["writers"] == ["ann", "ann"]

    def test_none(self, site: Site) -> None:
        told = site.get("b3")
        assert told.status == 404
        assert told.body == {"error": "no_state", "message": "reactor 'boxes' has no state under that key"}

    @pytest.mark.parametrize("key", ["a/b", "50%", "%2e", "a b+c", "é", "a&key=b1", "#", "..", "", "\n", '["a","b"]'])
    def test_any_text_can_be_asked_for(self, site: Site, key: str) -> None:
        site.benches[0].commit_all(record(3, Ping(box=key)))
        told = site.get(key)
        assert (told.status, told.body["key"]) == (200, key)

    def test_only_what_is_acknowledged(self, site: Site) -> None:
        bench = site.benches[0]
        bench.feed(record(3, Put(box="b1", item="coat")), record(4, Put(box="b9")))

        def nothing_of_it() -> None:
            assert site.get("b1").body["state"] == BOX
            assert site.get("b9").status == 404
            assert [one["key"] for one in site.keys().body["keys"]] == ["b1", "b2"]
            assert [one["key"] for one in site.export().body] == ["b1", "b2"]

        nothing_of_it()
        bench.lane.seal()
        nothing_of_it()
        bench.lane.acknowledged()
        assert site.get("b1").body["state"]["items"] == ["hat", "\u2028", "coat"]
        assert [one["key"] for one in site.keys().body["keys"]] == ["b1", "b2", "b9"]
        assert [one["key"] for one in site.export().body] == ["b1", "b2", "b9"]


class TestWhoMay:
    def test_nobody_without_a_token(self, site: Site) -> None:
        for told in (site.get("b1", None), site.keys(None), site.export(context=None)):
            assert told.status == 401
            assert told.headers["www-authenticate"] == "Bearer"
            assert told.body == {"error": "missing_context", "message": "reading state requires a token"}

    @pytest.mark.parametrize(
        ("context", "status", "code"),
        [
            (token("StateCap.read:/**", key=SigningKey.generate(1)), 401, "bad_signature"),
            (token("StateCap.read:/**", key=SigningKey.generate(5)), 401, "unknown_key"),
            (token("StateCap.read:/**", audience="bax"), 401, "wrong_audience"),
            (token("StateCap.read:/**", now_ms=NOW_MS - 900_000), 401, "token_expired"),
            (token("StateCap.read:/**", not_before_ms=NOW_MS + 1000), 401, "token_not_yet_valid"),
            (ALL + "A", 401, "malformed_token"),
            ("A" * 8193, 401, "token_too_large"),
            ("\xff", 401, "malformed_token"),
            ("", 401, "malformed_token"),
            (token("BoxCap.own:/**"), 403, "insufficient_capabilities"),
            (attenuate(ALL, ROOTS, capabilities=[]), 403, "insufficient_capabilities"),
            (token("StateCap.read:/**", intent_types=["box.put.v1"]), 403, "wrong_intent_type"),
            (token("StateCap.read:/**", topics=["box.intents"]), 403, "wrong_topic"),
            (token("StateCap.read:/** during fri 00:00-24:00 UTC"), 403, "not_now"),
        ],
    )
    def test_refusals(self, site: Site, context: str, status: int, code: str) -> None:
        for told in (site.get("b1", context), site.keys(context), site.export(context=context)):
            assert (told.status, told.body["error"]) == (status, code)
            assert set(told.body) == {"error", "message"}
            assert not context or context not in json.dumps(told.body)

    def test_who_may_read_one_key_learns_nothing_of_others(self, site: Site) -> None:
        """Nor of other reactors, whether they are there or not, nor of where things are."""
        site.known = [component("w1", 1, 0)]
        refused = [
            site.get("b2", B1),  # is there
            site.get("b3", B1),  # is not
            site.get("a/b", B1),
            site.get("b1", B1, reactor="watch"),
            site.get("b1", B1, reactor="nobody"),
            site.ask("/state/other/boxes?key=b2", B1),
            site.keys(B1),
            site.keys(B1, prefix="b1"),
            site.export(context=B1),
            site.export(partition=7, context=B1),
        ]
        site.close()
        refused += [site.get("b2", B1), site.get("b3", B1), site.keys(B1), site.export(context=B1)]
        assert {(told.status, told.body["error"]) for told in refused} == {(403, "insufficient_capabilities")}
        # What the message says of the resource is what was asked for.
        there, not_there, several, *_ = (told.body["message"] for told in refused)
        assert there.endswith("reading this takes StateCap.read:/boxes/b2")
        assert {there.replace("b2", "b3")} == {not_there}
        assert [told.body["message"] for told in refused[-4:]] == [there, not_there, several, several]

    def test_a_key_that_is_no_segment_is_for_who_may_read_all(self, site: Site) -> None:
        site.benches[0].commit_all(record(3, Ping(box="a/b")))
        assert site.get("a/b", token("StateCap.read:/boxes/**")).status == 200
        assert site.get("a/b", token("StateCap.read:/boxes/*")).status == 403
        assert site.get("a/b", token("StateCap.read:/boxes/a/b")).status == 403

    def test_the_time_is_the_workers(self, site: Site) -> None:
        site.clock.advance(899.999)
        assert site.get("b1").status == 200
        site.clock.advance(0.001)
        assert site.get("b1").body["error"] == "token_expired"

    def test_the_scheme_is_written_as_one_likes_and_stands_there_once(self, site: Site) -> None:
        path = "/state/box/boxes?key=b1"
        assert site.ask(path, None, Authorization=f"bearer  {ALL}").status == 200
        assert site.ask(path, None, Authorization=f"Basic {ALL}").body["error"] == "malformed_token"
        assert site.ask(path, None, Authorization=ALL).body["error"] == "malformed_token"
        asking = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
        asking.putrequest("GET", path)
        for context in (B1, ALL):
            asking.putheader("Authorization", f"Bearer {context}")
        asking.endheaders()
        assert asking.getresponse().status == 401
        asking.close()

    def test_a_token_in_the_address_is_none(self, site: Site) -> None:
        assert site.ask(f"/state/box/boxes?key=b1&token={ALL}", None).status == 400

    @pytest.mark.slow
    def test_no_token_of_the_hostile_suite_reads_anything(self) -> None:
        """They are good for a lot, and some are not well; none grants it."""
        scene = Scene("box", NOW_MS)
        messages = [attempt.message for theme in attempts_by_theme(scene).values() for attempt in theme] + scene.right
        contexts = {
            context.decode("latin-1")
            for message in messages
            for name, context in message.headers
            if name == "pf-context"
            and context is not None
            and len(context) < 100_000
            and not set(context) & set(b"\r\n")
        }
        assert len(contexts) > 100
        site = Site("w0", roots=HOSTILE_ROOTS)
        site.open().commit_all(record(0, Ping(box="b1")))
        with site.served():
            # What has control characters is no header at all.
            assert {site.get("b1", context).status for context in contexts} == {400, 401, 403}
            assert site.get("b1", token("StateCap.read:/boxes/b1", key=cases.KEY)).status == 200


class TestBrowsers:
    """A page in a browser on this machine has neither a token nor a way to read."""

    def test_a_page_that_calls_itself_something_else(self, site: Site) -> None:
        assert site.ask("/state/box/boxes?key=b1", Host="rebound.example").status == 400

    @pytest.mark.parametrize("method", ["OPTIONS", "POST", "PUT", "DELETE", "PATCH"])
    def test_nothing_but_reading(self, site: Site, method: str) -> None:
        asked = {"Origin": "http://evil.example", "Access-Control-Request-Headers": "authorization"}
        told = site.ask("/state/box/boxes?key=b1", method=method, **asked)
        assert told.status == 405
        assert not [name for name in told.headers if name.lower().startswith("access-control")]

    def test_what_is_told_is_shared_with_no_page(self, site: Site) -> None:
        told = site.ask("/state/box/boxes?key=b1", Origin="http://evil.example")
        assert not [name for name in told.headers if name.lower().startswith("access-control")]
        assert told.headers["x-content-type-options"] == "nosniff"


class TestWrong:
    @pytest.mark.parametrize(
        "query",
        [
            "",
            "?",
            "?kay=b1",
            "?key=b1&key=b2",
            "?key=b1&prefix=b",
            "?key=%ff",
            "?key=b1&&",
            "?key",
            "?" + "&".join(f"a{n}=1" for n in range(50)),
            "/keys?limit=0",
            "/keys?limit=1001",
            "/keys?limit=-1",
            "/keys?limit=1_0",
            "/keys?limit=%C2%B2",
            "/keys?limit=9" + "9" * 5000,
            "/keys?cursor=1",
            "/keys?cursor=",
            "/keys?cursor=:b1",
            "/keys?cursor=-1:b1",
            "/export",
            "/export?partition=1",
            "/export?partition=x",
        ],
    )
    def test_requests(self, site: Site, query: str) -> None:
        told = site.ask(f"/state/box/boxes{query}")
        assert (told.status, told.body["error"]) == (400, "bad_request")

    def test_what_is_not_there(self, site: Site) -> None:
        told = site.get("b1", reactor="nobody")
        assert told.status == 404
        assert told.body == {"error": "no_reactor", "message": "topology 'box' has no reactor 'nobody'"}
        told = site.ask("/state/other/boxes?key=b1")
        assert told.status == 404
        assert told.body == {"error": "not_found", "message": "this is a worker of 'box', and not of 'other'"}
        assert site.ask("/state/box").status == 404
        assert site.ask("/state/box/boxes/everything").status == 404

    def test_a_reactor_of_no_possible_name(self, site: Site) -> None:
        assert site.get("b1", reactor="..").status in {403, 404}
        assert site.get("b1", reactor="%2A").body["error"] == "bad_resource"

    def test_a_long_key_is_asked_for_and_an_endless_request_is_not_read(self, site: Site) -> None:
        assert site.get("k" * 40_000).status == 404
        # Of what is sent at once 256 KiB may be read; this is cut off in the middle.
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            site.get("k" * 5_000_000)

    def test_a_state_that_cannot_be_read_is_told_as_it_is(self, site: Site) -> None:
        prefix = state_prefix("boxes")
        stored = {
            "junk": b"?",
            "no JSON": pack_state(1, b"{"),
            "not a number": pack_state(1, b"NaN"),
            "two lines": pack_state(1, b'{"a":\n1}'),
            "another format": b"\x02\x00\x01{}",
            "newer": pack_state(9, b'{"n":1.0,"m":123456789012345678901234567890}'),
        }
        site.open(changelog=[(state_key(prefix, key.encode()), raw) for key, raw in stored.items()])
        told = {one["key"]: one for one in site.export().body}
        assert told.pop("newer")["state"] == {"n": 1.0, "m": 123456789012345678901234567890}
        assert set(told) == stored.keys() - {"newer"}
        assert {key: b64decode(one["raw"]) for key, one in told.items()} == {key: stored[key] for key in told}
        assert {(one["version"], one["state"]) for one in told.values()} == {(None, None)}
        assert site.get("junk").body["raw"] == "Pw=="


class TestMany:
    def every(self, partition: int) -> list[dict[str, object]]:
        return [{"key": key, "partition": partition} for key in sorted(name_in(partition, 3, n) for n in range(10))]

    def test_all_keys(self, full: Site) -> None:
        told = full.keys()
        assert told.body == {
            "keys": self.every(0) + self.every(1) + self.every(2),
            "next": None,
            "partitions": 3,
            "worker": "w0",
        }

    @pytest.mark.parametrize("limit", [1, 3, 7, 10, 30, 1000])
    def test_page_by_page(self, full: Site, limit: int) -> None:
        keys: list[object] = []
        cursor: str | None = "0"
        while cursor is not None:
            told = full.keys(limit=limit, cursor=cursor).body
            assert len(told["keys"]) <= limit
            keys += told["keys"]
            cursor = told["next"]
        assert keys == self.every(0) + self.every(1) + self.every(2)

    def test_a_prefix(self, full: Site) -> None:
        told = full.keys(prefix="b1").body["keys"]
        wanted = [one for number in range(3) for one in self.every(number) if str(one["key"]).startswith("b1")]
        assert 3 <= len(wanted) < 30
        assert told == wanted
        assert full.keys(prefix="c").body["keys"] == []

    def test_a_cursor_with_a_colon_in_its_key(self, full: Site) -> None:
        names = sorted(f"x:{n}" for n in range(9) if partition_of(f"x:{n}".encode(), 3) == 1)
        full.benches[1].commit_all(*(record(20 + n, Ping(box=name)) for n, name in enumerate(names)))
        told = full.keys(prefix="x:", cursor=f"1:{names[0]}").body["keys"]
        assert [one["key"] for one in told] == names[1:]

    def test_an_export_is_a_partition(self, full: Site) -> None:
        for number in range(3):
            told = full.export(number)
            assert told.headers["pf-partitions"] == "3"
            assert sorted(one["key"] for one in told.body) == [one["key"] for one in self.every(number)]
            assert {tuple(one) for one in told.body} == {("reactor", "key", "version", "state")}
        assert {one["key"] for one in full.export(1, prefix="b1").body} < {one["key"] for one in self.every(1)}

    def test_a_reactor_without_state(self, full: Site) -> None:
        assert full.keys(reactor="watch").body["keys"] == []
        assert full.export(reactor="watch").body == []

    @pytest.mark.slow
    def test_a_large_export_comes_in_pieces_and_breaks_off_when_the_lane_goes(self) -> None:
        worker = Site("w0")
        prefix = state_prefix("boxes")
        large = pack_state(1, b'{"items":["%s"]}' % (b"x" * 1000))
        worker.open(changelog=[(state_key(prefix, b"%d" % n), large) for n in range(50_000)])
        with worker.served():
            asking = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=10)
            asking.request("GET", "/state/box/boxes/export?partition=0", headers={"Authorization": f"Bearer {ALL}"})
            answer = asking.getresponse()
            assert answer.read(5_000_000).count(b"\n") > 4000
            worker.loop.call_soon_threadsafe(worker.close)
            with pytest.raises(http.client.IncompleteRead):
                answer.read()
            asking.close()
            worker.open()
            assert worker.export().status == 200

    @pytest.mark.slow
    def test_a_walk_waits_for_its_reader_and_ends_when_he_leaves(self) -> None:
        worker = Site("w0")
        prefix = state_prefix("boxes")
        large = pack_state(1, b'{"items":["%s"]}' % (b"x" * 100_000))
        bench = worker.open(changelog=[(state_key(prefix, b"%d" % n), large) for n in range(1000)])
        read = 0
        raw = bench.lane.raw

        def counting(reactor: str, key: bytes) -> bytes | None:
            nonlocal read
            read += 1
            return raw(reactor, key)

        bench.lane.raw = counting  # type: ignore[method-assign]
        with worker.served():
            asking = exporting(worker)
            assert asking is not None
            for _ in range(50):
                assert worker.get("0").status == 200  # time passes
            assert read < 600
            asking.close()
            for _ in range(100):
                assert worker.get("0").status == 200
            assert read < 900, "it goes on for nobody"

    def test_entries_of_a_state_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Up to a bound: there may be a million of them."""
        monkeypatch.setattr("pf_stream.worker.state.COUNTED", 50)
        worker = Site("w0")
        at = state_key(state_prefix("boxes"), b"a")
        other = state_key(state_prefix("boxes"), b"b")
        entries = [(at + pack_name("left") + pack_entry_key(n), pack_state(1, b"1")) for n in range(30)]
        worker.open(changelog=[(at, pack_state(1, b"{}")), (other, pack_state(1, b"{}")), *entries])
        with worker.served():
            assert worker.get("a").body["entries"] == {"left": 30}
            assert "entries" not in worker.get("b").body
            monkeypatch.setattr("pf_stream.worker.state.COUNTED", 20)
            assert worker.get("a").body["entries"] == {"left": 20}
            assert [one["key"] for one in worker.keys().body["keys"]] == ["a", "b"]

    @pytest.mark.slow
    def test_who_leaves_makes_room_for_others(self) -> None:
        worker = Site("w0")
        prefix = state_prefix("boxes")
        large = pack_state(1, b'{"items":["%s"]}' % (b"x" * 1000))
        worker.open(changelog=[(state_key(prefix, b"%d" % n), large) for n in range(50_000)])
        with worker.served():
            for _ in range(2 * _turns.WALKS):
                deadline = time.monotonic() + 20
                while (asking := exporting(worker)) is None:
                    assert time.monotonic() < deadline, "nobody made room"
                asking.close()

    def test_no_more_at_once_than_may(self, full: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_turns, "WALKS", 0)
        for told in (full.keys(), full.export()):
            assert (told.status, told.body["error"], told.headers["retry-after"]) == (503, "busy", "1")
        assert full.get("b1").status in {200, 404}


def exporting(site: Site) -> http.client.HTTPConnection | None:
    """A connection on which an export has begun, None if there is no room for it."""
    asking = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    asking.request("GET", "/state/box/boxes/export?partition=0", headers={"Authorization": f"Bearer {ALL}"})
    answer = asking.getresponse()
    if answer.status == 200:
        assert answer.read(1000)
        return asking
    assert answer.status == 503
    asking.close()
    return None


class TestElsewhere:
    def followed(self, told: Told) -> Told:
        """Where a redirect leads to, as a client that believes it would go there."""
        assert told.status == 307, told
        host, _, path = told.headers["location"].removeprefix("http://").partition("/")
        asking = http.client.HTTPConnection(host, timeout=10)
        asking.request("GET", f"/{path}", headers={"Authorization": f"Bearer {ALL}"})
        answer = asking.getresponse()
        body = answer.read()
        asking.close()
        return Told(answer.status, read_body(body, answer.headers["content-type"]), dict(answer.headers))

    def test_the_owner_is_named_and_answers(self, pair: tuple[Site, Site]) -> None:
        zero, one = (name_in(number, 2) for number in (0, 1))
        for worker, other, key in ((pair[0], pair[1], one), (pair[1], pair[0], zero)):
            told = worker.get(key)
            assert (told.body["error"], told.body["worker"]) == ("elsewhere", other.worker)
            assert self.followed(told).body["worker"] == other.worker
            assert other.get(key).body == self.followed(told).body

    def test_so_are_lists_and_exports(self, pair: tuple[Site, Site]) -> None:
        told = pair[0].keys(prefix="b", limit=5)
        assert [one["partition"] for one in told.body["keys"]] == [0]
        assert told.body["next"] == "1"
        told = self.followed(pair[0].keys(prefix="b", limit=5, cursor="1"))
        assert ([one["partition"] for one in told.body["keys"]], told.body["next"]) == ([1], None)
        assert [one["key"] for one in self.followed(pair[0].export(1, prefix="b")).body] == [name_in(1, 2)]

    def test_nothing_of_a_key_is_lost_on_the_way(self, pair: tuple[Site, Site]) -> None:
        key = next(key for key in (f"ä/{n} &=%+" for n in range(99)) if partition_of(key.encode(), 2) == 1)
        pair[1].benches[1].commit_all(record(1, Ping(box=key)))
        assert self.followed(pair[0].get(key)).body["key"] == key

    def test_who_was_sent_is_not_sent_on(self, pair: tuple[Site, Site]) -> None:
        """As in the middle of a rebalance, when the registry says what was."""
        pair[1].close(1)
        told = self.followed(pair[0].get(name_in(1, 2)))
        assert (told.status, told.body["error"], told.headers["retry-after"]) == (503, "lane_moving", "1")

    def test_who_is_said_to_have_it_and_does_not(self, pair: tuple[Site, Site]) -> None:
        """Its own entry in the registry is none to be sent to."""
        pair[1].close(1)
        told = pair[1].get(name_in(1, 2))
        assert (told.status, told.body["error"]) == (503, "owner_unknown")

    @pytest.mark.parametrize(
        ("more", "status", "code", "says"),
        [
            ({"host": "box-b"}, 421, "other_machine", "worker 'w1' on machine 'box-b'"),
            ({"port": None}, 421, "no_port", "worker 'w1', which answers on no port: start it with --health-port"),
            ({"heartbeat_ms": NOW_MS - 31_000}, 503, "owner_unknown", "no worker has told yet"),
            ({"app": "other.box"}, 503, "owner_unknown", "no worker has told yet"),
            ({"kind": "reactor"}, 503, "owner_unknown", "no worker has told yet"),
            ({"lanes": (lane_status(0),)}, 503, "owner_unknown", "no worker has told yet that it has lane intents-1"),
        ],
    )
    def test_owners_that_cannot_be_asked(
        self, pair: tuple[Site, Site], more: dict[str, Any], status: int, code: str, says: str
    ) -> None:
        pair[0].known = [pair[1].component(1, **more)]
        told = pair[0].get(name_in(1, 2))
        assert (told.status, told.body["error"]) == (status, code)
        assert says in told.body["message"]

    def test_of_two_that_say_so_the_later_one(self, pair: tuple[Site, Site]) -> None:
        gone = pair[1].component(1, name="w7", worker="w7", port=1, heartbeat_ms=NOW_MS - 5000)
        for known in ([gone, pair[1].component(1)], [pair[1].component(1), gone]):
            pair[0].known = known
            told = pair[0].get(name_in(1, 2))
            assert told.body["worker"] == "w1"

    def test_what_the_registry_says_leads_no_token_away(self, pair: tuple[Site, Site]) -> None:
        """Whoever may write there names a port of this machine, and nothing else."""
        for host in ("evil.example", f"{HERE}.evil.example", "127.0.0.1@evil.example"):
            pair[0].known = [pair[1].component(1, host=host)]
            assert pair[0].get(name_in(1, 2)).status == 421
        pair[0].known = [pair[1].component(1)]
        assert (
            pair[0]
            .get(name_in(1, 2))
            .headers["location"]
            .startswith(f"http://127.0.0.1:{pair[1].port}/state/box/boxes?")
        )

    def test_a_registry_that_cannot_be_read(self, pair: tuple[Site, Site]) -> None:
        pair[0].known = KafkaUnavailableError("nowhere:1", "gone")
        told = pair[0].get(name_in(1, 2))
        assert (told.status, told.body["error"], told.headers["retry-after"]) == (503, "owner_unknown", "1")
        assert "nowhere:1" in told.body["message"]


class TestNotYet:
    def test_a_worker_that_starts(self, site: Site) -> None:
        site.lanes = None
        told = site.get("b1")
        assert (told.status, told.body["error"], told.headers["retry-after"]) == (503, "starting", "1")

    def test_a_lane_that_recovers(self, site: Site) -> None:
        site.close()
        runner: Any = SimpleNamespace(status=lane_status(0, LaneState.recovering, progress=0.4))
        cast("Lanes", site.lanes)._starting["intents", 0] = runner
        for told in (site.get("b1"), site.keys(), site.export()):
            assert (told.status, told.headers["retry-after"]) == (503, "1")
            assert told.body == {
                "error": "lane_recovering",
                "message": "lane intents-0 is being opened; 40 % of its changelog is read",
                "progress": 0.4,
            }

    def test_a_lane_that_takes_its_lease(self, site: Site) -> None:
        site.close()
        runner: Any = SimpleNamespace(status=lane_status(0, LaneState.opening))
        cast("Lanes", site.lanes)._starting["intents", 0] = runner
        assert site.get("b1").body["message"] == "lane intents-0 is being opened"

    def test_a_lane_that_has_stopped_does_not_tell_whose_state_it_was(self, site: Site) -> None:
        site.close()
        reason = "state of reactor 'boxes' under key b'b2' cannot be decoded"
        stopped = lane_status(0, LaneState.stopped, code="state_undecodable", reason=reason)
        cast("Lanes", site.lanes)._stopped["intents", 0] = stopped
        told = site.get("b1", B1)
        assert (told.status, told.body["error"]) == (503, "lane_stopped")
        assert "state_undecodable" in told.body["message"]
        assert "b2" not in told.body["message"]
