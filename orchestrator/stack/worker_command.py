"""The command line of a worker: Celery's, with the flags and variables that turns need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Final

from agentapi.errors import ConfigurationError
from agentapi.logs import LogFormat

_PACKAGES: Final = ("agentapi", "workers", "orchestrator")

_HOME: Final = Path(__file__).parents[2]
"""The folder that contains agentapi's installed packages."""

_LAST_PORT: Final = 65_535

_OWN_FLAGS: Final = {
    "-n": "use --name",
    "--hostname": "use --name",
    "-D": "run it under a process supervisor instead",
    "--detach": "run it under a process supervisor instead",
}


def worker_command(
    name: str, flags: Sequence[str] = (), *, log_format: LogFormat = "text"
) -> list[str]:
    """Program and arguments of one worker process.

    Args:
        name: Its node name; the host's name is added if it has none.
        flags: Further flags of `celery worker`; they override the flags set here.
        log_format: The format of its log. Celery's banner, which is not JSON, is printed only for
            text.
    """
    # Celery's node names treat % as the start of a placeholder; %h is the host.
    node = name if "@" in name else f"{name}@%h"
    return [
        *(sys.executable, "-m", "celery", *(["--quiet"] if log_format == "json" else [])),
        *("-A", "workers", "worker"),
        # Workers coordinate through Redis, and need neither gossip nor mingle.
        *("--without-gossip", "--without-mingle"),
        *("-n", node, *flags),
    ]


def worker_names(name: str, count: int) -> list[str]:
    """The names of several workers, numbered if there is more than one."""
    if count == 1:
        return [name]
    own, at, host = name.partition("@")
    return [f"{own}-{number}{at}{host}" for number in range(1, count + 1)]


def other_name(name: str) -> str:
    """The name of a worker's replacement, which starts while the worker still runs.

    Args:
        name: The worker's name, from `worker_names`.
    """
    own, at, host = name.partition("@")
    return f"{own}-b{at}{host}"


def metrics_ports(names: Sequence[str], first: int | None) -> dict[str, dict[str, str]]:
    """The variables that give each process its own port for metrics.

    Args:
        names: The names of the processes.
        first: The port of the first process; the others get the ports after it. With 0 each process
            chooses a free port; None turns metrics off.

    Raises:
        ConfigurationError: There are not enough ports.
    """
    if not first:
        return {}
    if first + len(names) - 1 > _LAST_PORT:
        raise ConfigurationError(
            f"AGENTAPI_METRICS_PORT is {first}: {len(names)} processes need as many consecutive "
            f"ports, but the last port is {_LAST_PORT}"
        )
    return {name: {"AGENTAPI_METRICS_PORT": str(first + place)} for place, name in enumerate(names)}


def refuse_own_flags(flags: Sequence[str]) -> None:
    """Check the flags for Celery.

    Raises:
        ConfigurationError: A flag sets something that this command controls itself.
    """
    for flag in flags:
        option = flag.partition("=")[0] if flag.startswith("--") else flag[:2]
        if option in _OWN_FLAGS:
            raise ConfigurationError(f"{option} cannot be passed to Celery: {_OWN_FLAGS[option]}")


def refuse_shadowed_packages(folder: Path, path: Sequence[str] | None = None) -> None:
    """Check that a worker started in a folder would import agentapi's packages and no others.

    The worker looks in its working directory first, for the agents' modules. A `workers` folder
    there would be loaded instead of agentapi's, and Celery's error would not say why.

    Args:
        folder: The working directory.
        path: Where Python looks after that; this process's `sys.path` when not given.

    Raises:
        ConfigurationError: A module of the same name hides one of our packages.
    """
    for package in _PACKAGES:
        spec = PathFinder.find_spec(package, [str(folder), *(sys.path if path is None else path)])
        where = _place_of(spec)
        if where is not None and where != (_HOME / package).resolve():
            checkout = (
                " (this looks like agentapi's own checkout: run it from your project's folder)"
            )
            raise ConfigurationError(
                f"{where} would be imported in place of agentapi's own package {package!r}: rename "
                "it, or start the worker in another "
                f"folder{checkout if _is_checkout(where.parent) else ''}"
            )


def _is_checkout(folder: Path) -> bool:
    """Whether a folder contains all of agentapi's packages."""
    return all((folder / package / "__init__.py").is_file() for package in _PACKAGES)


def _place_of(spec: ModuleSpec | None) -> Path | None:
    """The folder of a package, or the file of a module."""
    if spec is None:
        return None
    for folder in spec.submodule_search_locations or ():
        return Path(folder).resolve()
    return Path(spec.origin).resolve() if spec.origin else None
