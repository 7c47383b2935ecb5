"""What commands take for a topology: a file, or an object in a module."""

from pathlib import Path

from pf_stream.errors import ConfigurationError
from pf_stream.model import Topology
from pf_stream.topology._imports import ImportFaults, find, import_from, split
from pf_stream.topology.file import read_topology_file

__all__ = ["TargetError", "load_topology"]


class TargetError(ConfigurationError):
    """Raised when a topology was named that cannot be had."""

    code = "bad_topology"

    def __init__(self, target: str, faults: tuple[str, ...]) -> None:
        self.target = target
        self.faults = faults
        super().__init__(f"topology {target!r}: " + "\n".join(faults))


def load_topology(target: str) -> Topology:
    """The topology of a YAML file, or of ``module:name`` with the working directory first on the path.

    Raises:
        NotFoundError: the file does not exist.
        TopologyFileError: it is wrong.
        TargetError: *target* is neither, or the module or the name cannot be had.
    """
    path = Path(target)
    if path.suffix in {".yaml", ".yml"} or (path.is_file() and path.suffix != ".py"):
        return read_topology_file(path)
    parts = split(target)
    if parts is None:
        hint = f"; did you mean '{path.stem}:NAME'?" if path.suffix == ".py" else ""
        raise TargetError(target, (f"it is neither a .yaml file nor module:name, such as flights:flights{hint}",))
    module, name = parts
    try:
        found = find(import_from(module, Path.cwd()), name, Topology)
    except ImportFaults as error:
        raise TargetError(target, error.faults) from error
    assert isinstance(found, Topology)
    return found
