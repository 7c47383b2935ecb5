"""What a consumer group has committed, told to those who watch it."""

from confluent_kafka import Consumer, TopicPartition

from pf_stream.kafka.admin import Admin, NewTopicSpec
from pf_stream.kafka.groups import GroupOffsets
from pf_stream.kafka.link import ConnectionSettings
from pf_stream.kafka.sender import NewRecord, send


def test_offsets_of_a_group(bootstrap_servers: str, unique: str) -> None:
    settings = ConnectionSettings(bootstrap_servers)
    Admin(settings).create([NewTopicSpec(unique, 2, {})], 1)
    send(settings, [NewRecord(unique, None, b"x", partition=1) for _ in range(5)])
    partitions = [(unique, 0), (unique, 1)]
    watched, nobody = (GroupOffsets(settings, group, partitions) for group in (unique, f"{unique}-nobody"))
    assert watched.read() == {(unique, 0): 0, (unique, 1): 0}

    member = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": unique})
    member.commit(offsets=[TopicPartition(unique, 1, 3)], asynchronous=False)
    assert watched.read() == {(unique, 0): 0, (unique, 1): 3}
    assert nobody.read() == {(unique, 0): 0, (unique, 1): 0}
    for one in (member, watched, nobody):
        one.close()
