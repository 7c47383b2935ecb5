"""Global tables: compacted topics that each worker reads whole and keeps, whatever keys its own lanes have."""

from dataclasses import dataclass, field
from typing import Any, Final, Generic, Literal, TypeAlias, get_args

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from typing_extensions import TypeVar

from pf_stream.errors import DefinitionError
from pf_stream.model.intent import TOPIC

__all__ = ["MOST_BYTES", "BadRow", "GlobalTable"]

R = TypeVar("R", default=Any)

BadRow: TypeAlias = Literal["skip", "stop"]
"""What becomes of a record that is no row. ``skip``: its key has no row, and it is counted. ``stop``: the worker ends."""

MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class GlobalTable(Generic[R]):
    """The last record of each key of a compacted topic, as a row; a record without a value removes it::

        carriers = GlobalTable("reference.carriers", Carrier)

        class Fleet(Reactor[Aircraft], id="fleet"):
            @on
            def departed(self, intent: FlightDeparted, state: Aircraft, ctx: Context) -> None:
                carrier = ctx.row(carriers, intent.carrier)

        Topology("flights", [Fleet], tables=[carriers])

    Rows are believed as they are: who may write to the topic is for Kafka to say.

    Raises :class:`DefinitionError` with every fault found.
    """

    topic: str
    """The topic, within the namespace unless it has a dot."""
    of: type[R]
    """What a row is, as pydantic reads it from JSON: an intent type, a dataclass, a model."""
    most_bytes: int = MOST_BYTES
    """Bytes of memory that the rows may take in a worker, by estimate; with more it ends (``table_full``)."""
    on_bad: BadRow = "skip"
    """What becomes of a record that is no row."""
    _adapter: TypeAdapter[R] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faults = []
        if not TOPIC.fullmatch(self.topic):
            faults.append(f"topic {self.topic!r} must be letters, digits, '.', '-' and '_'")
        if self.most_bytes < 1:
            faults.append(f"most_bytes must be 1 or more, not {self.most_bytes}")
        if self.on_bad not in get_args(BadRow):
            faults.append(f"on_bad must be {' or '.join(get_args(BadRow))}, not {self.on_bad!r}")
        try:
            object.__setattr__(self, "_adapter", TypeAdapter(self.of))
        except PydanticUserError as error:
            faults.append(f"rows cannot be {self.of!r}: {error.message}")
        if faults:
            raise DefinitionError(f"table {self.topic!r}", faults)

    def decode(self, raw: bytes) -> R | None:
        """A row, a new object each time; ``None`` if the bytes are none."""
        try:
            return self._adapter.validate_json(raw)
        except ValidationError:
            return None

    def encode(self, row: R) -> bytes:
        """As it is written to the topic."""
        return self._adapter.dump_json(row)
