"""The header of a changelog: what wrote it, and who may go on with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from pf_stream.core.changelog import FORMAT
from pf_stream.core.plan import GroupPlan
from pf_stream.errors import PFError

__all__ = [
    "ChangelogFormatError",
    "ChangelogOwnerError",
    "Header",
    "NewerStateError",
    "PartitionCountError",
    "UnknownReactorError",
]


class ChangelogFormatError(PFError):
    """Raised when a changelog has records of a format that this version of pf_stream does not know."""

    code = "changelog_format"

    def __init__(self, changelog: str, form: object) -> None:
        super().__init__(
            f"{changelog} has records of format {form!r:.40}, and this version of pf_stream reads format {FORMAT}: run the "
            f"version that wrote them, or a later one; if something else wrote into the topic, give write access to "
            f"the topology alone"
        )


class ChangelogOwnerError(PFError):
    """Raised when a changelog was written by another topology."""

    code = "changelog_owner"

    def __init__(self, changelog: str, was: str, now: str) -> None:
        super().__init__(
            f"{changelog} was written by topology {was!r}, and this is {now!r}: give one of them another name or namespace, "
            f"so that each has changelogs of its own"
        )


class PartitionCountError(PFError):
    """Raised when a changelog was written for another number of partitions: keys would be looked for in a wrong place."""

    code = "partition_count"

    def __init__(self, changelog: str, was: int, now: int) -> None:
        super().__init__(
            f"{changelog} was written for {was} partitions and the source topics have {now}: state lives where "
            f"its key lives. Kafka takes no partitions away, so start under another namespace or topology name"
        )


class NewerStateError(PFError):
    """Raised when a reactor's state may be stored in a version that is newer than the reactor's own."""

    code = "newer_state"

    def __init__(self, changelog: str, reactor: str, was: int, now: int, versions: str) -> None:
        super().__init__(
            f"{changelog} holds state of reactor {reactor!r} in version {was}, and this worker's is version {now} "
            f"({versions}): upgrade this worker; there is no way back from a newer state but to drop it"
        )


class UnknownReactorError(PFError):
    """Raised when a changelog holds state of reactors that the topology does not have: it would be forgotten silently."""

    code = "unknown_reactor"

    def __init__(self, changelog: str, unknown: Mapping[str, str | None], versions: str) -> None:
        gone = sorted(reactor for reactor, group in unknown.items() if group is None)
        moved = sorted(
            f"{reactor!r} (now in group {group!r})" for reactor, group in unknown.items() if group is not None
        )
        parts = [f"{changelog} holds state of reactors that this group does not have"]
        if gone:
            retired = ", ".join(f'"{reactor}"' for reactor in gone)
            parts.append(
                f"{', '.join(map(repr, gone))} ({versions}). Renamed? Give the new class the old id. Removed, or added by a newer "
                f"version that you take back? List it in the topology: retired=[{retired}], or drop its state: pf state drop"
            )
        if moved:
            parts.append(
                f"{', '.join(moved)}. A reactor's group follows from the topics that it reads, and state does not move "
                f"between groups: let it read the same topics as before, or give it a new id and list the old one "
                f"as retired"
            )
        super().__init__(": ".join(parts[:2]) + "".join(f"; and {part}" for part in parts[2:]))


@dataclass(frozen=True, slots=True)
class Header:
    """The record of kind ``h`` of a changelog partition."""

    topology: str
    """Name of the topology."""
    version: int
    """The topology's own version, as it was declared; for people."""
    partitions: int
    """Partitions of the changelog and of the source topics."""
    incarnation: str
    """Random name of the lane's life."""
    reactors: Mapping[str, int]
    """State version of every reactor that ever was in the group, by id, until its state is dropped."""

    @classmethod
    def parse(cls, changelog: str, value: bytes) -> "Header":
        """Read a stored header; raises :class:`ChangelogFormatError`."""
        data: dict[str, Any] = orjson.loads(value)
        if data["format"] != FORMAT:
            raise ChangelogFormatError(changelog, data["format"])
        return cls(data["topology"], data.get("version", 1), data["partitions"], data["incarnation"], data["reactors"])

    @classmethod
    def of(cls, plan: GroupPlan, incarnation: str, before: "Header | None") -> "Header":
        """What *plan* writes, after *before*."""
        return cls(
            topology=plan.topology.name,
            version=plan.topology.version,
            partitions=plan.partitions,
            incarnation=incarnation,
            reactors={
                **(before.reactors if before else {}),
                **{reactor.spec.id: reactor.spec.state.version for reactor in plan.reactors},
            },
        )

    def encode(self) -> bytes:
        """As it is stored."""
        return orjson.dumps(
            {
                "format": FORMAT,
                "topology": self.topology,
                "version": self.version,
                "partitions": self.partitions,
                "incarnation": self.incarnation,
                "reactors": self.reactors,
            }
        )

    def check(self, plan: GroupPlan) -> None:
        """Whether *plan* may go on with the changelog.

        The topology's own version decides nothing: an older one may take a changelog over as long as it can read it.

        Raises:
            ChangelogOwnerError, PartitionCountError, NewerStateError, UnknownReactorError: it may not.
        """
        topology, changelog = plan.topology, plan.changelog
        if self.topology != topology.name:
            raise ChangelogOwnerError(changelog, self.topology, topology.name)
        self.check_partitions(plan)
        versions = f"written by version {self.version} of the topology, and this is version {topology.version}"
        ours = {reactor.spec.id: reactor.spec.state.version for reactor in plan.reactors}
        for reactor, version in self.reactors.items():
            if version > ours.get(reactor, version):
                raise NewerStateError(changelog, reactor, version, ours[reactor], versions)
        unknown = self.reactors.keys() - ours.keys() - topology.retired
        if unknown:
            groups = {spec.__reactor__.id: group.name for group in topology.groups for spec in group.reactors}
            raise UnknownReactorError(changelog, {reactor: groups.get(reactor) for reactor in unknown}, versions)

    def check_partitions(self, plan: GroupPlan) -> None:
        """Raise :class:`PartitionCountError` if *plan* is for another number of partitions."""
        if self.partitions != plan.partitions:
            raise PartitionCountError(plan.changelog, self.partitions, plan.partitions)
