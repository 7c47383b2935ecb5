"""Whatever a client sends, and whatever a handler does: one dead letter, and no neighbour is lost.

Each case puts the bad record between two good ones of the same key, on the same partition.
"""

import secrets
from collections.abc import Iterator

import cramjam
import orjson
import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.protocol.fetch import FetchRequest
from structlog.testing import capture_logs

from pf_stream.core import changelog
from pf_stream.core.outbox import PointerEntry, decode_entry
from pf_stream.kafka import reader as tools
from pf_stream.kafka.batch import BatchBuilder, stamp
from pf_stream.kafka.link import Link
from tests.kafka._support import (
    Client,
    Headers,
    Place,
    ThreadWorker,
    connection,
    counts,
    header_list,
    headers_of,
    in_thread,
    make_topics,
    name_in,
    partition_for,
    read_topic,
    wait_until,
)


@pytest.fixture(scope="module")
def client(bootstrap_servers: str) -> Client:
    topology = counts.within("t" + secrets.token_hex(5))
    make_topics(bootstrap_servers, topology)
    return Client(bootstrap_servers, topology)


@pytest.fixture(scope="module")
def worker(bootstrap_servers: str, client: Client) -> Iterator[ThreadWorker]:
    with in_thread(bootstrap_servers, client.topology) as worker:
        yield worker


def sandwich(
    client: Client,
    worker: ThreadWorker,
    value: bytes | None,
    headers: Headers,
    code: str,
    *,
    name: str = "",
    key: str | bytes | None = "",
    counted: int = 2,
) -> dict[str, bytes | None]:
    """Send good, bad, good; both good ones count, and the bad one is a dead letter that has all of it.

    Returns the headers of the dead letter.
    """
    name = name or name_in(0, client.topology)
    key = name if key == "" else key
    partition = partition_for(name, client.topology)
    refused = worker.refused[code]
    client.add(name)
    number = client.send(key, value, headers, partition=partition)
    client.add(name)
    place = client.flush()[number]

    def settled() -> None:
        assert worker.count(name) == counted
        assert worker.refused[code] == refused + 1

    wait_until(settled)
    letter = wait_until(lambda: client.dead_letter(place))
    assert letter.key() == (key.encode() if isinstance(key, str) else key)
    assert letter.value() == value
    kept = [header for header in headers if header[0] != "pf-context"]
    assert header_list(letter)[: len(kept)] == kept
    added = headers_of(letter)
    assert added["pf-error-code"] == code.encode()
    assert added["__streams.errors.message"]
    assert "pf-context" not in added
    return added


def good(name: str = "x", **more: object) -> bytes:
    return orjson.dumps({"name": name, **more})


# -- what clients send ---------------------------------------------------------------------------------------------------


def test_bytes_that_are_no_json(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, b"\x00\xff not JSON", client.headers(), "malformed_payload")


def test_json_of_another_shape(client: Client, worker: ThreadWorker) -> None:
    added = sandwich(client, worker, b'{"name": 1, "by": "many", "whence": 2}', client.headers(), "malformed_payload")
    message = (added["__streams.errors.message"] or b"").decode()
    assert "name" in message
    assert "by" in message
    assert "many" not in message  # a payload may be secret


def test_payload_of_2_mb_goes_through_the_outbox_as_a_pointer(client: Client, worker: ThreadWorker) -> None:
    value = good(how=secrets.token_urlsafe(2 << 20)[: 2 << 20])
    sandwich(client, worker, value, client.headers(), "payload_too_large")
    pointers = [entry for entry in outputs(client) if isinstance(entry, PointerEntry)]
    assert [entry.source for entry in pointers if entry.topic.endswith(".dlq")]


def test_payload_that_its_producer_compressed_better_than_we_can(client: Client, worker: ThreadWorker) -> None:
    """It fits into the source topic and its dead letter into none; the lane goes on, and the dead letter says where it is."""
    name = name_in(0, client.topology)
    block = secrets.token_bytes(2_200_000)  # further apart than the usual window of zstd reaches
    builder = BatchBuilder(8 << 20, compress=False)
    builder.append(0, name.encode(), block * 3, client.headers())
    plain = builder.build()
    body = bytes(cramjam.zstd.compress(plain[61:], level=9))
    assert len(body) < 4 << 20
    head = bytearray(plain[:61])
    head[8:12] = (49 + len(body)).to_bytes(4, "big")
    head[21:23] = (4).to_bytes(2, "big")
    client.add(name)
    client.flush()
    offset = worker.run(write_batch(client, 0, stamp(bytes(head) + body, -1, -1, -1)))
    client.add(name)
    client.flush()
    wait_until(lambda: same(worker.count(name), 2))
    letter = wait_until(lambda: client.dead_letter(Place(0, offset)))
    assert headers_of(letter)["pf-error-code"] == b"payload_too_large"
    assert letter.value() is None


def outputs(client: Client) -> list[object]:
    """Every output that was ever put into the outbox and that the changelog still holds."""
    (topic,) = [client.topology.changelog(group) for group in client.topology.groups if group.name == "intents"]
    values = [(message.key() or b"", message.value()) for message in read_topic(client.bootstrap_servers, topic)]
    return [decode_entry(value) for key, value in values if key[1:2] == b"o" and value is not None]


def test_10_000_headers(client: Client, worker: ThreadWorker) -> None:
    headers = client.headers() + [(f"h{index % 5000}", b"%d" % index) for index in range(10_000)]
    sandwich(client, worker, good(), headers, "too_many_headers")


def test_null_key(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, good(), client.headers(), "null_key", key=None)


def test_null_value(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, None, client.headers(), "null_value")


def test_key_of_another_name(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, good("somebody"), client.headers(), "key_mismatch", key="somebody else")


def test_key_of_invalid_utf8(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, good(), client.headers(), "key_mismatch", key=b"\xff\xfe\x00\x80")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("counts.subtracted.v1", "unknown_type"),
        ("counts.added.v2", "unsupported_version"),
        ("counts.totalled.v1", "unknown_type"),  # it travels on another topic
        (b"\xff\xfe", "unknown_type"),
        (None, "malformed_envelope"),
        (b"", "malformed_envelope"),
    ],
)
def test_types_that_are_not_handled(client: Client, worker: ThreadWorker, kind: str | None, code: str) -> None:
    headers = client.headers(ce_type=kind)
    sandwich(client, worker, good(), headers, code)


def test_header_without_a_value(client: Client, worker: ThreadWorker) -> None:
    headers = [(name, None if name == "ce_id" else value) for name, value in client.headers()]
    sandwich(client, worker, good(), headers, "malformed_envelope")


def test_header_that_appears_twice(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, good(), [*client.headers(), ("ce_id", b"again")], "duplicate_header")


def test_no_headers_at_all(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, good(), [], "malformed_envelope")


def test_structured_mode_that_is_no_event(client: Client, worker: ThreadWorker) -> None:
    headers: Headers = [("content-type", b"application/cloudevents+json")]
    sandwich(client, worker, b'["no", "object"]', headers, "malformed_envelope")


def test_token_that_is_none(client: Client, worker: ThreadWorker) -> None:
    sandwich(client, worker, good(), client.headers(pf_context=b"\xff\x00"), "malformed_token")


def test_times_that_are_none(client: Client, worker: ThreadWorker) -> None:
    name = name_in(0, client.topology)
    headers = client.headers(pf_deadline=b"soon \xff")
    sandwich(client, worker, good(name), headers, "malformed_envelope", name=name)


def test_reply_topic_that_is_none(client: Client, worker: ThreadWorker) -> None:
    name = name_in(0, client.topology)
    for topic in (b"\xff", b"", b"__consumer_offsets", client.topic.encode()):
        headers = client.headers(pf_reply_to=topic)
        sandwich(client, worker, good(name), headers, "bad_reply_topic", name=name, counted=worker.count(name) + 2)


# -- header names that are no UTF-8: no client library writes them, but any socket can ------------------------------------


PLACEHOLDER = "bad-name"
BAD_NAME = b"bad\xff\xfe\x80me"
ENCODERS = [bytes, gzip_encode, snappy_encode, lz4_encode, zstd_encode]


def raw_batch(client: Client, name: str, codec: int, extra: int) -> bytes:
    """Good, bad, good as one record batch; the bad one's header name is put in behind the encoder's back."""
    assert len(BAD_NAME) == len(PLACEHOLDER)
    builder = BatchBuilder(1 << 20, compress=False)
    filler: Headers = [("filler", secrets.token_bytes(1)) for _ in range(extra)]
    bad: Headers = [*client.headers("counts.nothing.v1"), (PLACEHOLDER, b"\x01"), *filler]
    builder.append(0, name.encode(), good(name), client.headers())
    builder.append(0, name.encode(), good(name), bad)
    builder.append(0, name.encode(), good(name), client.headers())
    plain = bytearray(builder.build().replace(PLACEHOLDER.encode(), BAD_NAME))
    body = bytes(plain[61:])
    body = ENCODERS[codec](body)
    head = plain[:61]
    head[8:12] = (len(head) - 12 + len(body)).to_bytes(4, "big")
    head[21:23] = codec.to_bytes(2, "big")
    return stamp(bytes(head) + body, -1, -1, -1)


async def write_batch(client: Client, partition: int, batch: bytes) -> int:
    """Append a record batch to the intents topic; the offset of its first record."""
    link = await Link.connect(connection(client.bootstrap_servers))
    try:
        await link.watch([client.topic])
        where = client.topic, partition
        leader = link.leader(where)
        assert leader is not None
        answer = (await link.produce(leader, [(where, batch)]))[where]
        assert answer.error is None
        return answer.offset
    finally:
        await link.close()


@pytest.fixture(scope="module")
def quarantine(bootstrap_servers: str) -> Iterator[tuple[Client, ThreadWorker]]:
    """Topics of their own: confluent-kafka dies of a segmentation fault when it shows such a header."""
    topology = counts.within("t" + secrets.token_hex(5))
    make_topics(bootstrap_servers, topology)
    with in_thread(bootstrap_servers, topology) as worker:
        yield Client(bootstrap_servers, topology), worker


@pytest.mark.parametrize("extra", [0, 30_000], ids=["inline", "pointer"])
@pytest.mark.parametrize("codec", range(5), ids=["plain", "gzip", "snappy", "lz4", "zstd"])
def test_header_name_of_invalid_utf8(quarantine: tuple[Client, ThreadWorker], codec: int, extra: int) -> None:
    client, worker = quarantine
    name = name_in(1, client.topology)
    code = "too_many_headers" if extra else "unknown_type"
    batch = raw_batch(client, name, codec, extra)

    offset = worker.run(write_batch(client, 1, batch))
    client.add(name)
    client.flush()

    wait_until(lambda: same(worker.count(name), 3))
    letter = wait_until(lambda: raw_dead_letter(client, worker, b"%d" % (offset + 1)))
    # As on the wire: each with its length in front, as a zigzag varint.
    assert wire(BAD_NAME) + wire(b"\x01") in letter
    assert wire(name.encode()) + wire(good(name)) in letter
    assert wire(b"pf-error-code") + wire(code.encode()) in letter
    assert letter.count(wire(b"filler")) == extra


def test_tools_show_a_header_name_of_invalid_utf8(quarantine: tuple[Client, ThreadWorker]) -> None:
    """The library that they read with fails at it, and dies if it is asked twice."""
    client, worker = quarantine
    name = name_in(0, client.topology)
    worker.run(write_batch(client, 0, raw_batch(client, name, 4, 0)))
    wait_until(lambda: same(worker.count(name), 2))

    def shown() -> None:
        letters = [
            record
            for record in tools.read_topic(connection(client.bootstrap_servers), f"{client.topic}.dlq", partitions=[0])
            if record.key == name.encode()
        ]
        assert len(letters) == 1
        assert letters[0].header(r"bad\xff\xfe\x80me") == "\x01"
        assert letters[0].header("pf-error-code") == "unknown_type"

    wait_until(shown)


def raw_dead_letter(client: Client, worker: ThreadWorker, offset: bytes) -> bytes:
    """The body of the one record batch with the dead letter of *offset*: no client library would read its headers."""
    where = f"{client.topic}.dlq", 1

    async def fetch() -> bytes:
        kafka = AIOKafkaClient(bootstrap_servers=client.bootstrap_servers)
        await kafka.bootstrap()
        try:
            await kafka.set_topics([where[0]])
            node = kafka.cluster.leader_for_partition(TopicPartition(*where))
            request = FetchRequest(100, 1, 64 << 20, 1, [(where[0], [(where[1], 0, 64 << 20)])])
            ((_, ((*_, data),)),) = (await kafka.send(node, request)).topics
            assert isinstance(data, bytes)
            return data
        finally:
            await kafka.close()

    wanted = wire(b"__streams.errors.offset") + wire(offset)
    found = [body for body in bodies(worker.run(fetch())) if wanted in body]
    assert len(found) == 1
    assert found[0].count(wanted) == 1
    return found[0]


def bodies(data: bytes) -> Iterator[bytes]:
    """The records of each batch, without zstd."""
    at = 0
    while at + 61 <= len(data):
        end = at + 12 + int.from_bytes(data[at + 8 : at + 12], "big")
        body = data[at + 61 : end]
        yield bytes(cramjam.zstd.decompress(body)) if data[at + 22] & 7 == 4 else body
        at = end


def wire(data: bytes) -> bytes:
    """Bytes as a record has them, their length in front."""
    zigzag = 2 * len(data)
    out = bytearray()
    while zigzag >= 0x80:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes((*out, zigzag)) + data


def same(found: object, wanted: object) -> None:
    assert found == wanted


# -- what handlers do ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "code", "says"),
    [
        ("raises", "handler_failed", b"cannot count"),
        ("raises with a surrogate", "handler_failed", b"a file"),
        ("raises what cannot be shown", "handler_failed", b"SpitefulError"),
        ("exits", "handler_failed", b"enough"),
        ("returns a number", "bad_effect", b"42"),
        ("returns text in a list", "bad_effect", b"nonsense"),
        ("emits text", "bad_effect", b"str"),
        ("emits what is not declared", "bad_effect", b"Unlisted"),
        ("replies what has no JSON form", "bad_effect", b"JSON"),
        ("leaves a wrong type", "bad_state", b""),
        ("leaves a circle", "bad_state", b""),
        ("leaves a surrogate", "bad_state", b""),
    ],
)
def test_handlers_that_misbehave(client: Client, worker: ThreadWorker, how: str, code: str, says: bytes) -> None:
    name = name_in(0, client.topology)
    headers = client.headers(pf_reply_to=f"{client.topology.namespace}.replies")
    added = sandwich(client, worker, good(name, how=how), headers, code, name=name)
    assert says in (added["__streams.errors.message"] or b"")
    assert worker.state("counts", name)["notes"] == []


def test_a_failure_takes_back_nothing_of_other_intents(client: Client, worker: ThreadWorker) -> None:
    """Many keys, every third intent fails, all in as few units as possible."""
    names = [name_in(index % 2, client.topology) for index in range(40)]
    total = worker.total()
    for _ in range(20):
        for name in names:
            client.add(name)
            client.add(name, how="raises", by=1000)
            client.add(name, by=2)
    client.flush()
    wait_until(lambda: same({worker.count(name) for name in names}, {60}))
    wait_until(lambda: same(worker.total(), total + 60 * len(names)))


# -- what is in the changelog --------------------------------------------------------------------------------------------


def test_state_that_cannot_be_decoded(bootstrap_servers: str, unique: str) -> None:
    """Its lane stops, says which record it is, and commits nothing beyond it; repaired, it goes on there."""
    topology = counts.within(unique)
    make_topics(bootstrap_servers, topology)
    client = Client(bootstrap_servers, topology)
    broken, neighbour, other = (name_in(partition, topology) for partition in (0, 0, 1))
    log = f"{topology.app_id}-intents-changelog"
    key = changelog.state_key(changelog.state_prefix("counts"), broken.encode())
    client.place(key, changelog.pack_state(1, b'{"n": 1}'), [], partition=0, topic=log)
    garbage = client.place(key, changelog.pack_state(1, b"{garbage"), [], partition=0, topic=log)
    client.add(neighbour, 3000)
    client.add(broken)
    client.add(neighbour, 10)
    client.add(other, 5)
    client.flush()

    with capture_logs() as logs, in_thread(bootstrap_servers, topology) as worker:

        def stopped() -> None:
            assert worker.count(other) == 5
            assert f"<lane {log}-0>" not in worker.lanes
            entries = [entry for entry in logs if "offset" in entry]
            assert len(entries) == 1
            entry = entries[0]
            assert entry["reactor"] == "counts"
            assert entry["key"] == broken
            assert entry["offset"] == garbage.offset
            assert entry["log_level"] == "error"

        wait_until(stopped)
        client.add(other)
        client.flush()
        wait_until(lambda: same(worker.count(other), 6))

    client.place(key, changelog.pack_state(1, b'{"n": 41}'), [], partition=0, topic=log)
    with in_thread(bootstrap_servers, topology) as worker:
        wait_until(lambda: same((worker.count(broken), worker.count(neighbour)), (42, 3010)))
        wait_until(lambda: same(worker.total(), 3010 + 1 + 6))
    assert not client.dead_letters()
