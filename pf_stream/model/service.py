"""Services: the identity under which a reactor emits where it is not to be its caller's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pf_stream.errors import DefinitionError
from pf_stream.model.capability import Grant, HeldGrant, parse_grant

__all__ = ["MAX_KID", "Service"]

MAX_KID: Final = 2**32 - 1
"""Highest number of a key: Biscuit's ``rootKeyId`` is a uint32."""


@dataclass(frozen=True, slots=True, init=False)
class Service:
    """A reactor's own identity: what it emits goes under its own grants instead of its caller's.

    So it may cause what its caller may not; hence it is written down in the topology, and nowhere else. Its tokens are signed
    by the worker, with a key that the worker's configuration gives and its trust roots hold. They say on whose behalf: the
    caller's tenant stays.
    """

    key: int
    """The kid of the key that signs for it."""
    grants: tuple[HeldGrant, ...]
    """What it may do; what it emits needs no more."""

    def __init__(self, key: int, grants: Sequence[Grant | HeldGrant | str]) -> None:
        """Take grants as ``AirportCap.count("/**")`` or ``"AirportCap.count:/**"``.

        Raises:
            DefinitionError: there is no grant, or one is a template.
            BadGrantError: the text of one cannot be read.
        """
        faults = []
        if not grants:
            faults.append("grants nothing, so nothing that it emits could be handled")
        if not 0 <= key <= MAX_KID:
            faults.append(f"key {key} is no kid: they are 0 to {MAX_KID}")
        if faults:
            raise DefinitionError("Service(...)", faults)
        held = (parse_grant(grant) if isinstance(grant, str) else HeldGrant.of(grant) for grant in grants)
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "grants", tuple(held))
