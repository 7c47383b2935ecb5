"""The root of every error that pf_stream raises.

::

    PFError                     code, retryable
    ├── DefinitionError         a class or topology is wrong; raised when it is made
    ├── ConfigurationError      a file, flag or environment variable is wrong
    ├── NotFoundError           something named does not exist
    ├── DeniedError             who asks may not
    ├── UnhealthyError          what is asked does not work as it should
    └── ...                     each package adds its own leaves beside the code that raises them

Policy reads ``code`` and ``retryable``, never the text. The text is for people: it names the thing and the fix.
A record that is refused is not an error: refusals are values in the commit unit (see ``pf_stream.core``).
"""

from collections.abc import Sequence
from typing import ClassVar

__all__ = ["ConfigurationError", "DefinitionError", "DeniedError", "NotFoundError", "PFError", "UnhealthyError"]


class PFError(Exception):
    """Raised when pf_stream cannot do what it was asked; every error of the library is one."""

    code: str = "error"
    """Stable, machine-readable name of the fault: the class's, or of what somebody else has answered."""
    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without a change."""


class DefinitionError(PFError):
    """Raised when a capability, intent, state, reactor or topology is declared wrongly; lists every fault found."""

    code = "bad_definition"

    def __init__(self, subject: str, faults: Sequence[str]) -> None:
        self.subject = subject
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            super().__init__(f"{subject}: {self.faults[0]}")
        else:
            lines = "".join(f"\n  - {fault}" for fault in self.faults)
            super().__init__(f"{subject} has {len(self.faults)} faults:{lines}")


class ConfigurationError(PFError):
    """Raised when a setting from a file, a flag or the environment is missing or cannot be used."""

    code = "bad_configuration"


class NotFoundError(PFError):
    """Raised when something named does not exist."""

    code = "not_found"


class DeniedError(PFError):
    """Raised when somebody may not do or see what they ask for."""

    code = "denied"


class UnhealthyError(PFError):
    """Raised when what is asked does not work as it should at this moment."""

    code = "unhealthy"
