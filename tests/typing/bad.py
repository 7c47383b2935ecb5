"""What a type checker must refuse: each line that ends in ``# error: ...`` with that message, and no other line."""
# ruff: noqa: B018, N805 - an expression is enough for a type checker; a static method that is none is one of the faults
# A mark belongs to the line that it marks.
# fmt: off

from typing import Any

from flights import Aircraft, Fleet, FlightCap, FlightDeparted, flights
from pf_stream import Context, Effects, Emit, Intent, MapState, Reactor, Reply, State, Topology, on, upcast, upgrade
from pf_stream.streams import stream
from pf_stream.testing import Driver

driver = Driver(flights)

# Intents
flight = FlightDeparted(tailnum="N1", carrier="UA", origin="EWR", flight=1, dest="LAX")
FlightDeparted(tailnum=1, carrier="UA", origin="EWR", flight=1, dest="")  # error: Argument "tailnum" to "FlightDeparted" has
FlightDeparted(tailnum="N1", carrier="UA", origin="EWR", flight=1)  # error: Missing named argument "dest"
FlightDeparted(tailnum="", carrier="", origin="", flight=1, dest="", gate=3)  # error: Unexpected keyword argument "gate"
flight.carrier = "AA"  # error: Property "carrier" defined in "FlightDeparted" is read-only
flight.gate  # error: "FlightDeparted" has no attribute "gate"

# State
Aircraft(legz=1)  # error: Unexpected keyword argument "legz"
Aircraft(legs="1")  # error: Argument "legs" to "Aircraft" has incompatible type "str"
Aircraft().legz = 1  # error: "Aircraft" has no attribute "legz"
Aircraft().legs = "1"  # error: Incompatible types in assignment
State().legs  # error: "State" has no attribute "legs"

# Maps
class Mapped(State):
    rows: MapState[int, Aircraft]
    floats: MapState[float, int]  # error: Value of type variable "K" of "MapState" cannot be "float"

mapped = Mapped(rows=MapState(), floats=MapState())  # error: Argument "floats" to "Mapped" has incompatible type "MapState[int, int]"
mapped.rows["1"]  # error: Invalid index type "str" for "MapState[int, Aircraft]"
mapped.rows[1] = 2  # error: Incompatible types in assignment
mapped.rows.get(1).legs  # error: Item "None" of "Aircraft | None" has no attribute "legs"
mapped.rows.items("a")  # error: Argument 1 to "items" of "MapState" has incompatible type "str"
len(mapped.rows)  # error: Argument 1 to "len" has incompatible type "MapState[int, Aircraft]"

# Capabilities
FlightCap.raport  # error: "type[FlightCap]" has no attribute "raport"
FlightCap.report()  # error: Missing positional argument "pattern"
driver.context(FlightCap.report)  # error: Argument 1 to "context" of "Driver" has incompatible type "Operation"

# Effects
Emit("flight")  # error: Argument 1 to "Emit" has incompatible type "str"
Reply(3)  # error: Argument 1 to "Reply" has incompatible type "int"


class Bad(Reactor[Aircraft], id="bad"):
    @on  # error: Value of type variable "F" of "on" cannot be
    def text(self, intent: FlightDeparted, state: Aircraft, ctx: Context) -> str:
        return "effect"

    @on  # error: Value of type variable "F" of "on" cannot be
    async def later(self, intent: FlightDeparted, state: Aircraft, ctx: Context) -> None: ...

    @on
    def good(self, intent: FlightDeparted, state: Aircraft, ctx: Context) -> Effects:
        ctx.subject = "eve"  # error: Property "subject" defined in "Context" is read-only
        state.legs += intent.delay  # error: Unsupported operand types for +
        return "effect"  # error: Incompatible return value type


# Versions
class Changed(State, version=4):
    @upgrade(from_version=1)
    def instance(old: dict[str, Any]) -> dict[str, Any]: return old  # error: "self" parameter missing for a non-static

    @upgrade(from_version="2")  # error: Argument "from_version" to "upgrade" has incompatible type "str"
    @staticmethod
    def text(old: dict[str, Any]) -> dict[str, Any]: return old

    @upgrade(from_version=3)  # error: Value of type variable "F" of function cannot be
    @staticmethod
    async def later(old: dict[str, Any]) -> dict[str, Any]: return old

    @upcast(from_version=3)  # error: Value of type variable "F" of function cannot be
    @staticmethod
    def bytes_(old: bytes) -> bytes: return old

    @upgrade(3)  # error: Too many positional arguments for "upgrade"
    @staticmethod
    def positional(old: dict[str, Any]) -> dict[str, Any]: return old


# Reactors and topologies
Reactor[int]  # error: Value of type variable "S" of "Reactor" cannot be "int"
Topology("t", [Aircraft])  # error: List item 0 has incompatible type "type[Aircraft]"
Topology("t", [Fleet], emits=[Fleet])  # error: List item 0 has incompatible type "type[Fleet]"
Topology("t", [Fleet], version="2")  # error: Argument "version" to "Topology" has incompatible type "str"
Topology("t", [Fleet], replys=["x"])  # error: Unexpected keyword argument "replys"

# The driver
driver.send("flight")  # error: Argument 1 to "send" of "Driver" has incompatible type "str"
driver.state(Aircraft, "N1")  # error: Argument 1 to "state" of "Driver" has incompatible type "type[Aircraft]"
driver.state(Fleet, 1.5)  # error: Argument 2 to "state" of "Driver" has incompatible type "float"
driver.state(Fleet, "N1").legs  # error: Item "None" of "Aircraft | None" has no attribute "legs"
Intent.__intent__.version = 2  # error: Property "version" defined in "IntentSpec" is read-only

# Pipelines
stream(FlightDeparted).map(lambda flight: flight.gate)  # error: "FlightDeparted" has no attribute "gate"
stream(FlightDeparted).key_by(lambda flight: flight.flight)  # error: Argument 1 to "key_by" of "Stream" has incompatible type
stream(Aircraft)  # error: Value of type variable "I" of "stream" cannot be "Aircraft"
