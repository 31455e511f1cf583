"""Get what these tests need, and run them: ``make test-system``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.system.packages import (
    ENABLED,
    Missing,
    chromium,
    containers,
    promtool,
    rabbitmq,
    redis_server,
    systemd_analyze,
)


def main() -> int:
    """Run the tests; returns pytest's exit code."""
    try:
        promtool()
        chromium()
        systemd_analyze()
        containers()
        rabbitmq()
        redis_server()
    except Missing as error:
        sys.stderr.write(f"{error}\n")
        return 1
    os.environ[ENABLED] = "1"
    return int(pytest.main(["-n2", "--dist=loadfile", str(Path(__file__).parent), *sys.argv[1:]]))


if __name__ == "__main__":
    sys.exit(main())
