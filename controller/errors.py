"""The one exception family of this package."""


class ControllerError(Exception):
    """Something the control plane cannot do; the message says what to do next."""


class ProgramError(ControllerError, ValueError):
    """A switch program that cannot be built, read or put into OpenFlow."""


class CounterError(ControllerError, ValueError):
    """Counters of a switch that read unlike anything Open vSwitch prints."""


class OpenFlowLibraryError(ControllerError):
    """No usable OpenFlow library, or one asked for that is not there."""


class HeartbeatError(ControllerError, ValueError):
    """Heartbeats or nodes that do not belong together."""


class MigrationError(ControllerError, ValueError):
    """A migration that cannot be, or a journal that tells none."""


class JournalError(ControllerError):
    """An entry that is not known to be written: this controller must not act on it, nor on anything else."""


class PlacementError(ControllerError, ValueError):
    """An application that does not fit, or a question about placement that has no answer; names the constraint."""
