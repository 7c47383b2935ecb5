"""The data folder: formatted once, remembered, and emptied of ours only."""

from pathlib import Path

import pytest

from pf_stream.kafka.dev.errors import DiskError
from pf_stream.kafka.dev.storage import BrokerRecord, ClusterRecord, DataDir, Listener, Node

RECORD = BrokerRecord(pid=1, token="t", port=20_001, version="4.4.0", started_at="2026-01-01T00:00:00.000+00:00")


def meta(path: Path) -> dict[str, str]:
    lines = (path / "kafka" / "meta.properties").read_text(encoding="ascii").splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_first_start_formats(tmp_path: Path) -> None:
    DataDir(tmp_path).prepare(20_001, 20_002)
    assert list(meta(tmp_path)) == ["version", "node.id", "directory.id", "cluster.id"]
    assert {len(meta(tmp_path)[name]) for name in ("directory.id", "cluster.id")} == {22}
    (snapshot,) = (tmp_path / "kafka" / "__cluster_metadata-0").iterdir()
    assert snapshot.name == "00000000000000000000-0000000000.checkpoint"
    assert snapshot.stat().st_size == 411


def test_next_start_keeps_the_data_and_takes_the_new_ports(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.prepare(20_001, 20_002)
    before = meta(tmp_path)
    data.prepare(20_003, 20_004)
    assert meta(tmp_path) == before
    assert data.last_port() == 20_003
    assert "listeners=PLAINTEXT://127.0.0.1:20003,CONTROLLER://127.0.0.1:20004" in (
        tmp_path / "server.properties"
    ).read_text(encoding="utf-8")


def test_two_folders_are_two_clusters(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        DataDir(tmp_path / name).prepare(20_001, 20_002)
    assert meta(tmp_path / "a")["cluster.id"] != meta(tmp_path / "b")["cluster.id"]


def test_half_formatted_folder_is_not_taken_for_a_formatted_one(tmp_path: Path) -> None:
    (tmp_path / "format-x" / "kafka").mkdir(parents=True)  # its process was killed
    DataDir(tmp_path).prepare(20_001, 20_002)
    assert meta(tmp_path)["node.id"] == "1"


def test_log_of_the_start_before_is_kept(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.prepare(20_001, 20_002)
    data.log_path.write_text("first\nwhy it died\n", encoding="utf-8")
    assert data.log_tail(1) == ["why it died"]
    data.prepare(20_001, 20_002)
    assert data.log_tail(1) == []
    assert (tmp_path / "broker.previous.log").read_text(encoding="utf-8") == "first\nwhy it died\n"


def test_record_is_read_back_and_forgotten(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    assert data.read_record() is None
    data.write_record(RECORD)
    assert data.read_record() == RECORD
    data.forget_record()
    data.forget_record()
    assert data.read_record() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', '{"pid": 1, "surprise": 2}', "1"])
def test_record_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "broker.json").write_text(text, encoding="utf-8")
    assert DataDir(tmp_path).read_record() is None


def test_reset_deletes_ours_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    data = DataDir(tmp_path)
    data.prepare(20_001, 20_002)
    data.write_record(RECORD)
    data.log_path.touch()
    data.reset()
    assert {path.name for path in tmp_path.iterdir()} == {"thesis.txt"}
    data.reset()  # again, with nothing there


def test_no_port_is_remembered_in_a_new_folder(tmp_path: Path) -> None:
    assert DataDir(tmp_path).last_port() is None


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    data = DataDir(tmp_path / "file")
    with pytest.raises(DiskError, match=r"cannot write .*server\.properties: Not a directory"):
        data.prepare(20_001, 20_002)
    with pytest.raises(DiskError, match=r"broker\.json: Not a directory"):
        data.write_record(RECORD)


# -- several nodes ---------------------------------------------------------------------------------------------------------


def properties(data: DataDir) -> dict[str, str]:
    """As Java reads them: of a name that comes twice, the last."""
    lines = (data.path / "server.properties").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line)


@pytest.mark.parametrize(("nodes", "replicas", "in_sync"), [(1, "1", "1"), (2, "2", "1"), (3, "3", "2"), (5, "3", "2")])
def test_internal_topics_survive_what_the_number_of_nodes_allows(
    tmp_path: Path, nodes: int, replicas: str, in_sync: str
) -> None:
    voters = tuple(20_100 + number for number in range(nodes))
    data = DataDir(tmp_path).node(nodes)
    data.prepare(20_001, voters[-1], Node(nodes, voters, "MkU3OEVBNTcwNTJENDM2Qg"))
    found = properties(data)
    assert found["node.id"] == str(nodes)
    assert found["controller.quorum.voters"].count("@127.0.0.1:") == nodes
    assert {
        found[f"{topic}.replication.factor"] for topic in ("default", "offsets.topic", "transaction.state.log")
    } == {replicas}
    assert {found["min.insync.replicas"], found["transaction.state.log.min.isr"]} == {in_sync}
    assert (meta(data.path)["node.id"], meta(data.path)["cluster.id"]) == (str(nodes), "MkU3OEVBNTcwNTJENDM2Qg")


def test_second_listener_advertises_another_port_and_settings_come_last(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.prepare(20_001, 20_002, Node(second=Listener(20_003, 20_004), settings={"num.partitions": "9"}))
    found = properties(data)
    assert found["listeners"].endswith(",SECOND://127.0.0.1:20003")
    assert found["advertised.listeners"] == "PLAINTEXT://127.0.0.1:20001,SECOND://127.0.0.1:20004"
    assert found["num.partitions"] == "9"
    assert data.last_port() == 20_001


def test_cluster_is_read_back_and_forgotten(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    assert data.read_cluster() is None
    record = ClusterRecord("MkU3OEVBNTcwNTJENDM2Qg", (1, 2, 3), (4, 5, 6))
    data.write_cluster(record)
    assert data.read_cluster() == record
    assert not data.is_single
    data.forget_cluster()
    assert data.read_cluster() is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cluster_id": "x"}', "1"])
def test_cluster_that_cannot_be_read_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cluster.json").write_text(text, encoding="utf-8")
    assert DataDir(tmp_path).read_cluster() is None
