"""A topology that lives by timers, and one rule for what each intent means."""

import dataclasses
from datetime import datetime
from typing import Annotated, Literal

from pf_stream import (
    PUBLIC,
    Cancel,
    Capability,
    Context,
    Effects,
    Emit,
    Intent,
    Key,
    Reactor,
    Reply,
    RetryInPlace,
    RetryLater,
    Schedule,
    State,
    Topology,
    on,
    operation,
)


class NoteCap(Capability):
    """What may be done with notes: ``/{note}``."""

    write = operation()
    remind = operation()
    own = operation(implies=[write, remind])


class Remind(Intent, name="note.remind", requires=NoteCap.remind("/{note}")):
    """Comes by a timer, or from anybody who may."""

    note: Annotated[str, Key]
    text: str
    again: int = 0
    """How often it schedules itself once more."""


class Told(Intent, name="note.told", topic="told", requires=NoteCap.remind("/{note}")):
    """Goes on to a second group."""

    note: Annotated[str, Key]
    text: str


class Write(Intent, name="note.write", requires=NoteCap.write("/{note}")):
    """Sets and cancels timers, as it is told."""

    note: Annotated[str, Key]
    text: str = ""
    after: float | None = None
    at: datetime | None = None
    name: str | None = None
    cancel: str | None = None
    clock: Literal["wall", "event"] = "wall"
    other: str | None = None
    """Key of the reminder, if it is another one."""
    again: int = 0
    kind: Literal["remind", "told"] = "remind"
    fail: bool = False


class Pay(Intent, name="note.pay", requires=PUBLIC, once="1h"):
    """Counts once."""

    note: Annotated[str, Key]
    amount: int
    fail: bool = False


class Knock(Intent, name="note.knock", requires=PUBLIC):
    """Handled once a door is open; each policy has its own kind."""

    note: Annotated[str, Key]
    policy: Literal["now", "in place", "later"] = "in place"


class KnockLater(Intent, name="note.knock_later", requires=PUBLIC):
    """The same, put aside."""

    note: Annotated[str, Key]


class KnockOnce(Intent, name="note.knock_once", requires=PUBLIC):
    """The same, without a second chance."""

    note: Annotated[str, Key]


class Note(State):
    """Everything that happened to a note, with the processing time in milliseconds since the test began."""

    log: list[str] = dataclasses.field(default_factory=list)
    paid: int = 0


CLOSED: set[str] = set()
"""Doors that are closed: handlers raise while they are. Something outside, as a handler must not have it; but things break."""


class Notes(Reactor[Note], id="notes", on_error=RetryInPlace(attempts=4, backoff_s=1, max_backoff_s=3)):
    """Writes everything down."""

    @on
    def write(self, intent: Write, state: Note, ctx: Context) -> Effects:
        state.log.append(f"write {intent.text}")
        effects: list[Schedule | Cancel | Emit | Reply] = []
        if intent.cancel is not None:
            effects.append(Cancel(intent.cancel))
        if intent.after is not None or intent.at is not None:
            key = intent.other or intent.note
            what: Intent = (
                Told(note=key, text=intent.text)
                if intent.kind == "told"
                else Remind(note=key, text=intent.text, again=intent.again)
            )
            effects.append(Schedule(what, after=intent.after, at=intent.at, name=intent.name, clock=intent.clock))
        if intent.fail:
            effects.append(Schedule(Remind(note=intent.note, text="never")))
        return effects

    @on
    def remind(self, intent: Remind, state: Note, ctx: Context) -> Effects:
        late = "" if ctx.due_ms is None else f" late {ctx.now_ms - ctx.due_ms}"
        state.log.append(f"remind {intent.text}{late} by {ctx.subject}")
        effects: list[Schedule | Emit] = [Emit(Told(note=intent.note, text=intent.text))]
        if intent.again:
            onward = Remind(note=intent.note, text=intent.text, again=intent.again - 1)
            effects.append(Schedule(onward, after=10, name="again"))
        return effects

    @on(on_error=None)
    def pay(self, intent: Pay, state: Note, ctx: Context) -> None:
        if intent.fail and intent.note in CLOSED:
            raise ValueError("no")
        state.paid += intent.amount

    @on
    def knock(self, intent: Knock, state: Note, ctx: Context) -> None:
        state.log.append("knock")
        if intent.note in CLOSED:
            raise ConnectionError("closed")

    @on(on_error=RetryLater(attempts=3, backoff_s=5))
    def knock_later(self, intent: KnockLater, state: Note, ctx: Context) -> None:
        state.log.append("knock later")
        if intent.note in CLOSED:
            raise ConnectionError("closed")

    @on(on_error=None)
    def knock_once(self, intent: KnockOnce, state: Note, ctx: Context) -> None:
        state.log.append("knock once")
        if intent.note in CLOSED:
            raise ConnectionError("closed")


class Heard(State):
    """What the second group was told."""

    log: list[str] = dataclasses.field(default_factory=list)


class Hearers(Reactor[Heard], id="hearers"):
    """Hears what came out of timers."""

    @on
    def told(self, intent: Told, state: Heard, ctx: Context) -> None:
        state.log.append(intent.text)


notes = Topology("note", [Notes, Hearers], internal=["told"], replies=["replies"])
