"""Everything that can go wrong for a user: a class, an exit code, a remedy.

Exit codes follow the draft BIDS Apps execution specification where it speaks
(16, 17, 18, 64, 65, 66, 73, 75) and BSD's ``sysexits.h`` elsewhere.
"""

from __future__ import annotations


class TractographyError(Exception):
    """An error that a user can understand and act on.

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
    """Labels or filters match nothing, or more than the one file they should."""

    exit_code = 18


class FilteredOutError(NoMatchError):
    """A participant has DWI, and filters leave none of it."""


class UsageError(TractographyError):
    """The command line contradicts itself or the machine."""

    exit_code = 64


class DataError(TractographyError):
    """An input file is there, and wrong."""

    exit_code = 65


class GradientError(DataError):
    """b-values or b-vectors are malformed or do not belong to the image."""


class GridError(DataError):
    """An image is not on the grid that it should be on."""


class EmptyMaskError(DataError):
    """A mask has no voxel."""


class ImplausibleError(DataError):
    """A measurement is one that the subject cannot have."""


class NoStreamlinesError(DataError):
    """Tracking finished and kept nothing."""


class NoInputError(TractographyError):
    """A valid dataset lacks a file that is needed."""

    exit_code = 66


class NoDwiError(NoInputError):
    """A participant has no DWI at all."""


class OutputError(TractographyError):
    """The output folder cannot be used."""

    exit_code = 73


class BusyError(TractographyError):
    """Another process is at work on the same output; try again later."""

    exit_code = 75


class ChangedError(TractographyError):
    """An input file changed while a run was using it; another try may do."""

    exit_code = 75


class DamagedStoreError(TractographyError):
    """Finished batches changed on disk while they were in use; another try tracks them again."""

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
    """A process was killed, most often for memory; another try may do."""

    exit_code = 75


class UnavailableError(TractographyError):
    """Something that was asked for is not on this machine: a library, a device, a cluster."""

    exit_code = 69


class DeviceError(UnavailableError):
    """There is no GPU, or it cannot do what is asked."""


class DeviceLostError(DeviceError):
    """A GPU failed on the way; another try may do."""

    exit_code = 75


class ConfigError(TractographyError):
    """The tracking configuration has faults."""

    exit_code = 78
