"""Errors that users can act on, each with an exit code and a remedy.

Exit codes follow the draft BIDS Apps execution specification where it defines one
(16, 17, 18, 64, 65, 66, 73, 75) and BSD's ``sysexits.h`` otherwise.
"""

from __future__ import annotations


class TractographyError(Exception):
    """Base class of the errors that a user can understand and act on.

    Parameters
    ----------
    message : str
        What is wrong and where (participant, file, configuration key).
    remedy : str, optional
        What to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class InvalidBidsError(TractographyError):
    """The input folder is not a BIDS dataset."""

    exit_code = 16


class UnknownLevelError(TractographyError):
    """The analysis level is neither ``participant`` nor ``group``."""

    exit_code = 17


class NoMatchError(TractographyError):
    """Labels or filters match nothing, or more than the single file they should match."""

    exit_code = 18


class FilteredOutError(NoMatchError):
    """A participant has DWI data, all of which the filters exclude."""


class UsageError(TractographyError):
    """Command-line options contradict each other or the machine."""

    exit_code = 64


class DataError(TractographyError):
    """An input file is invalid."""

    exit_code = 65


class GradientError(DataError):
    """b-values or b-vectors are malformed or do not belong to the image."""


class GridError(DataError):
    """An image is not on the expected grid."""


class EmptyMaskError(DataError):
    """A mask is empty."""


class ImplausibleError(DataError):
    """A measurement is impossible for the subject."""


class NoStreamlinesError(DataError):
    """Tracking finished without keeping any streamline."""


class NoInputError(TractographyError):
    """A valid dataset lacks a required file."""

    exit_code = 66


class NoDwiError(NoInputError):
    """A participant has no DWI data."""


class OutputError(TractographyError):
    """The output folder cannot be used."""

    exit_code = 73


class BusyError(TractographyError):
    """Another process is using the same output; try again later."""

    exit_code = 75


class ChangedError(TractographyError):
    """An input file changed during a run; trying again may succeed."""

    exit_code = 75


class DamagedStoreError(TractographyError):
    """Finished batches changed on disk while in use; trying again tracks them again."""

    exit_code = 75

    def __init__(
        self,
        message: str,
        remedy: str = "Rerun the same command: the damaged batches are tracked again.",
    ) -> None:
        super().__init__(message, remedy)


class CrashError(TractographyError):
    """A defect of the program."""

    exit_code = 70


class DiedError(TractographyError):
    """A process was killed, most often for lack of memory; trying again may succeed."""

    exit_code = 75


class UnavailableError(TractographyError):
    """A library, device or cluster that was requested is not available."""

    exit_code = 69


class DeviceError(UnavailableError):
    """No GPU is available, or it does not support the request."""


class DeviceLostError(DeviceError):
    """A GPU failed while tracking; trying again may succeed."""

    exit_code = 75


class ConfigError(TractographyError):
    """The tracking configuration is invalid."""

    exit_code = 78
