"""The result of a check: how serious it is, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Level(StrEnum):
    """How serious a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a check found.

    Attributes:
        level: How serious it is. `FAIL` means that turns wait or fail.
        code: A stable name, ``subject.fault``, for scripts.
        message: What was found, without secrets.
        remedy: What to do; empty when there is nothing to do.
    """

    level: Level
    code: str
    message: str
    remedy: str = ""

    @property
    def subject(self) -> str:
        """What was checked: the first part of the code."""
        return self.code.partition(".")[0]

    def to_json(self) -> dict[str, str]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Finding:
        """From the data of another process, which may be of a newer release."""
        return cls(
            level=Level(data["level"]),
            code=str(data["code"]),
            message=str(data["message"]),
            remedy=str(data["remedy"]),
        )


def ok(code: str, message: str) -> Finding:
    """A check that found nothing wrong."""
    return Finding(level=Level.OK, code=code, message=message)


def warn(code: str, message: str, remedy: str) -> Finding:
    """A fault that costs time, money or data, but turns still run."""
    return Finding(level=Level.WARN, code=code, message=message, remedy=remedy)


def fail(code: str, message: str, remedy: str) -> Finding:
    """A fault that makes turns wait or fail."""
    return Finding(level=Level.FAIL, code=code, message=message, remedy=remedy)
