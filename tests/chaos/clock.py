"""Workers with a wrong clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

LIBRARIES: Final = tuple(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))

_SITE: Final = """\
import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + {seconds}
time.time_ns = lambda: _time_ns() + {seconds} * 10**9
"""


def clock_off(seconds: int, folder: Path) -> Mapping[str, str]:
    """Environment for a process whose wall clock is wrong; other clocks are not affected.

    With Debian's package `libfaketime` the whole process sees the wrong time; otherwise only
    callers of Python's `time.time` do.

    Args:
        seconds: The deviation.
        folder: A folder for a file that the process reads.
    """
    if LIBRARIES:
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME": f"{seconds:+d}",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    place = folder / f"clock{seconds:+d}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "sitecustomize.py").write_text(_SITE.format(seconds=seconds))
    return {"PYTHONPATH": str(place)}
