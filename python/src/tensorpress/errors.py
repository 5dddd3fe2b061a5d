"""What can go wrong, by whose fault it is."""

from __future__ import annotations

from typing import Any


class TensorpressError(Exception):
    """An error of the program. Its text is the program's own line.

    Attributes:
        status: the program's exit status.
        result: what it printed as JSON all the same, None for nothing.
    """

    status = 1

    def __init__(self, message: str, status: int | None = None, result: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        if status is not None:
            self.status = status
        self.result = result


class RunError(TensorpressError):
    """Reading, writing or the machine failed (exit status 1)."""


class UsageError(TensorpressError):
    """The command is wrong, or would overwrite something (exit status 2)."""

    status = 2


class SourceError(TensorpressError):
    """The source is damaged, unsupported or inconsistent (exit status 3)."""

    status = 3


class VerifyError(TensorpressError):
    """Verification found a problem, or too great an error (exit status 4).

    `result` says what, as `tensorpress verify --json` does.
    """

    status = 4


class InterruptedRunError(TensorpressError):
    """The run was interrupted (exit status 130); nothing is left under the destination's name."""

    status = 130


class ProgramNotFoundError(TensorpressError):
    """There is no tensorpress to run."""

    status = 127


BY_STATUS: dict[int, type[TensorpressError]] = {
    e.status: e for e in (RunError, UsageError, SourceError, VerifyError, InterruptedRunError)
}
