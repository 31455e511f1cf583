"""systemd's own tool reads the units in deploy/systemd."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import DEPLOY
from tests.system.packages import systemd_analyze

UNITS = sorted((DEPLOY / "systemd").iterdir())
EXPOSED = 2.0
"""Of 10, as `systemd-analyze security` counts; a unit without any hardening has 9.6."""


def installed(folder: Path, change: str = "", into: str = "") -> list[str]:
    """Copies of the units that start a program which this machine has."""
    made = []
    for path in UNITS:
        text = re.sub(r"/srv/agents/venv/bin/\w+", "/bin/true", path.read_text())
        copy = folder / path.name
        copy.write_text(text.replace(change, into) if change else text)
        made.append(str(copy))
    return made


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [systemd_analyze(), *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_the_units_are_valid(tmp_path: Path) -> None:
    assert len(UNITS) == 3
    done = analyze("verify", *installed(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("change", "into"),
    [
        ("Restart=always", "Restart=alwys"),
        ("PrivateTmp=", "PrivateTemp="),
        ("/bin/kill", "/bin/kll"),
    ],
)
def test_a_wrong_unit_is_found(tmp_path: Path, change: str, into: str) -> None:
    # Its exit code is 0 for most faults, so that any line counts.
    assert analyze("verify", *installed(tmp_path, change, into)).stderr


@pytest.mark.parametrize("place", range(3))
def test_the_units_are_hardened(tmp_path: Path, place: int) -> None:
    path = installed(tmp_path)[place]
    done = analyze("security", "--offline=true", f"--threshold={EXPOSED * 10:g}", path)
    assert done.returncode == 0, done.stdout
    unhardened = analyze("security", "--offline=true", "--threshold=20",
                         installed(tmp_path, "=yes", "=no")[place])  # fmt: skip
    assert unhardened.returncode != 0
