"""What can go wrong that is not a bug of ours, and the exit code each kind ends with.

XrayError
├── UsageError            2   a command line or path that cannot be meant
│   └── ConfigError       2   a YAML file or override that does not say what it should
├── DataError             3   images or labels that cannot be used
│   ├── DecodeError       3   one image file that cannot be read; carries a reason code
│   └── LeakError         3   the same patient or picture on both sides of a split
├── CheckpointError       5   a model file that is damaged, foreign or incomplete
├── OutputError           6   a result that cannot or must not be written
├── NonFiniteError        7   a loss, weight or score that is NaN or infinite
├── MemoryRunOutError     8   not even a single image fits into memory
├── RequirementError      9   a result that does not meet what was required of it
├── PeerLostError        75   another process of the job is gone; the run can be resumed
└── InterruptedRun      130   Ctrl-C; the state was saved
    └── TerminatedRun    75   SIGTERM or SIGUSR1; the state was saved
"""

from typing import ClassVar


class XrayError(Exception):
    """Something the user can act on: the message says where, what was found and what to do."""

    exit_code: ClassVar[int] = 1


class UsageError(XrayError):
    """A command line or a path that cannot be meant."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file or an override that does not say what it should."""


class DataError(XrayError):
    """Images or labels that cannot be used as they are."""

    exit_code = 3


class DecodeError(DataError):
    """One image that cannot be decoded.

    Args:
        reason: A short code from a closed list, as written to the `reason` column.
        detail: One sentence for a person; holds no header text of the image.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class LeakError(DataError):
    """The same patient or the same picture on both sides of a split."""


class CheckpointError(XrayError):
    """A model file that is damaged, foreign, too new, or lacks what is asked of it."""

    exit_code = 5


class OutputError(XrayError):
    """A result that cannot or must not be written."""

    exit_code = 6


class NonFiniteError(XrayError):
    """A loss, weight or score became NaN or infinite."""

    exit_code = 7


class MemoryRunOutError(XrayError):
    """Memory ran out, and smaller parts did not help."""

    exit_code = 8


class RequirementError(XrayError):
    """A result does not meet what was required of it; all its files are written."""

    exit_code = 9


class PeerLostError(XrayError):
    """Another process of the job ended or does not answer."""

    exit_code = 75


class InterruptedRun(XrayError):
    """Ctrl-C: the step was finished and the state saved."""

    exit_code = 130


class TerminatedRun(InterruptedRun):
    """SIGTERM or SIGUSR1: the step was finished and the state saved."""

    exit_code = 75
