"""How `make test-system` gets its programs, with an apt-get that only pretends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.packages import Missing, chromium

APT = """#!/bin/sh
echo "$*" >> {folder}/calls
case "$1" in
  update) {touch} {folder}/lists ;;
  install) [ -e {folder}/lists ] || exit 100; {ends_with} ;;
esac
"""
BROWSER = "printf '#!/bin/sh\\n' > {folder}/chromium; /bin/chmod +x {folder}/chromium"


def machine(folder: Path, monkeypatch: pytest.MonkeyPatch, *, root: bool, ends_with: str) -> None:
    """A machine with nothing but an apt-get, whose lists of packages are missing."""
    text = APT.format(folder=folder, touch=": >", ends_with=ends_with.format(folder=folder))
    (folder / "apt-get").write_text(text)
    (folder / "apt-get").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)


def calls(folder: Path) -> list[str]:
    return [line.split()[0] for line in (folder / "calls").read_text().splitlines()]


def test_a_missing_browser_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(tmp_path, monkeypatch, root=True, ends_with=BROWSER)
    assert chromium() == tmp_path / "chromium"
    assert calls(tmp_path) == ["install", "update", "install"]
    assert chromium() == tmp_path / "chromium"
    assert len(calls(tmp_path)) == 3, "what is there is not installed again"


def test_another_user_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch, root=False, ends_with=BROWSER)
    with pytest.raises(
        Missing, match=r"^make test-system needs chromium: apt-get install chromium"
    ):
        chromium()
    assert not (tmp_path / "calls").exists()


def test_a_machine_that_has_no_such_package_is_told_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(tmp_path, monkeypatch, root=True, ends_with="exit 100")
    with pytest.raises(Missing, match=r"apt-get install chromium$"):
        chromium()
