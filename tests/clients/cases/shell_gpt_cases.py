"""ShellGPT's command, as its documentation uses it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from kit import BASE, KEY, case, contains, main

HOME = Path(tempfile.mkdtemp(prefix="sgpt-"))
(HOME / ".config/shell_gpt").mkdir(parents=True)
(HOME / ".config/shell_gpt/.sgptrc").write_text(
    f"API_BASE_URL={BASE}\nOPENAI_API_KEY={KEY}\nDEFAULT_MODEL=plain\nUSE_LITELLM=false\n"
    f"CHAT_CACHE_PATH={HOME}/chat\nCACHE_PATH={HOME}/cache\n"
)


def sgpt(*arguments: str) -> str:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("sgpt")), *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "HOME": str(HOME)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@case("quickstart")
def prompt() -> None:
    contains(sgpt("--no-cache", "What is the fibonacci sequence"), "fibonacci sequence")


@case("quickstart")
def code() -> None:
    contains(sgpt("--no-cache", "--code", "solve fizz buzz"), "fizz buzz")


@case("multi-turn")
def chat() -> None:
    sgpt("--chat", "number", "please remember my favorite number: 4")
    contains(sgpt("--chat", "number", "what would it be"), "users=2")


if __name__ == "__main__":
    main()
