"""What to do when Redis, the broker or the archive cannot be used."""

from __future__ import annotations

import re
import socket
from typing import Final

from redis.exceptions import BusyLoadingError

from agentapi.errors import ConfigurationError, StoreFault
from agentapi.faults import causes_of
from agentapi.logins import login_refused, virtual_host_refused
from agentapi.tls import tls_fault, tls_guess


def server_remedy(error: BaseException, url: str, variable: str) -> str:
    """What to do when Redis or the broker cannot be used.

    Args:
        error: What was raised, with its causes.
        url: The server's URL, with or without its password.
        variable: The variable that holds the URL.
    """
    causes = list(causes_of(error))
    if isinstance(error, ConfigurationError):
        return setting_remedy(error)
    if (fault := tls_fault(error, url, variable)) is not None:
        return f"{fault[1][0].upper()}{fault[1][1:]}."
    if login_refused(error):
        return f"Correct the user and password in {variable}, or that user's permissions."
    if virtual_host_refused(error):
        return (
            f"Create the virtual host and give the user permissions on it, or correct {variable}."
        )
    if any(isinstance(cause, BusyLoadingError) for cause in causes):
        return "Wait until it has loaded its data."
    if isinstance(error, StoreFault):
        return f"Allow the user in {variable} to run all commands, or correct {variable}."
    if (guess := tls_guess(error, url, variable)) is not None:
        return f"Start it, or {guess[1]}."
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"Correct the host name in {variable}, or this machine's DNS."
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return f"Check that it is running and that no firewall blocks it, or correct {variable}."
    return f"Start it, or correct {variable}."


def setting_remedy(error: Exception) -> str:
    """What to do about the invalid setting that an error names."""
    named = re.search(r"AGENTAPI_[A-Z_]+", str(error))
    return f"Correct {named[0]}." if named else "Follow the message."


_ARCHIVE: Final = (
    ("pip install", "Run the command in the message."),
    ("has version", "Upgrade agentapi here."),
    ("have version", "Upgrade agentapi here."),
    ("has no tables", "Run `agentapi archive migrate`."),
    (
        "unable to open database file",
        "Create the folder and let this user write to it, or correct AGENTAPI_ARCHIVE_URL.",
    ),
    ("readonly database", "Let this user write to the file and to its folder."),
    (
        "database is locked",
        "Stop the program that holds the lock. To share an archive between machines, use "
        "PostgreSQL.",
    ),
    ("disk is full", "Free space on its disk."),
    (
        "damaged",
        "Restore the archive from a backup, or name another file in AGENTAPI_ARCHIVE_URL.",
    ),
    (
        "refuses the user or password",
        "Correct the user and password in AGENTAPI_ARCHIVE_URL, or let that user SELECT, INSERT "
        "and DELETE.",
    ),
    (
        "authentication failed",
        "Correct the user and password in AGENTAPI_ARCHIVE_URL.",
    ),
    (
        "does not exist",
        "Create the object that the message names, or correct AGENTAPI_ARCHIVE_URL.",
    ),
    (
        "resolve host",
        "Correct the host name in AGENTAPI_ARCHIVE_URL, or this machine's DNS.",
    ),
    ("certificate", "Correct the TLS options in AGENTAPI_ARCHIVE_URL, or the certificate."),
    ("SSL", "Correct `sslmode` in AGENTAPI_ARCHIVE_URL, or TLS on the server."),
)
"""Parts of error texts, and what to do about each."""


def archive_remedy(error: Exception) -> str:
    """What to do when the archive cannot be used."""
    for part, remedy in _ARCHIVE:
        if part in str(error):
            return remedy
    if isinstance(error, ConfigurationError):
        return setting_remedy(error)
    return "Start it, or correct AGENTAPI_ARCHIVE_URL."
