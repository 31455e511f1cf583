"""The measured costs of a turn for each part of a fleet."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from agentapi.errors import ConfigurationError

_MEASURED: Final = "costs.json"


class Costs(BaseModel):
    """Measured costs; milliseconds are those of one core's processor time.

    ``python -m benchmarks.capacity --write`` measures them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    measured_on: str
    """The machine, the versions and the date of the measurement."""
    worker_turn_ms: float
    """CPU time of a worker for a turn with one model call."""
    worker_step_ms: float
    """CPU time of a worker for each further model call with its tool call."""
    worker_piece_ms: float
    """CPU time of a worker for a piece of streamed text."""
    store_enqueue_ms: float
    """Redis's time to accept a turn, including the broker's message."""
    store_turn_ms: float
    """Redis's time from the claim to the commit of a turn with one model call."""
    store_step_ms: float
    """Redis's time for each further model call with its tool call."""
    store_piece_ms: float
    """Redis's time for a piece of streamed text."""
    gateway_turn_ms: float
    """CPU time of a gateway for a request that waits for its turn."""
    wakeup_ms: float
    """From `enqueue` to the claim, with an idle worker."""
    dispatch_ms: float
    """A sweeper's time to look at one overdue turn and send it again."""
    isolated_ms: float
    """Time to start the separate process of a turn that lost its worker."""
    worker_mib: float
    """Memory of an idle worker process."""
    worker_slot_mib: float
    """Memory of a turn in flight."""
    conversation_bytes: float
    """Bytes in Redis of a conversation, without its messages."""
    message_overhead_bytes: float
    """Bytes in Redis of a message in addition to its JSON."""
    turn_bytes: float
    """Bytes in Redis of an ended turn without its messages: its record and its entry in a list."""
    turn_message_factor: float
    """How many copies of an ended turn's messages its record contains."""
    events_bytes: float
    """Bytes in Redis of the events of an ended turn that did not stream."""
    store_dispatch_ms: float = 0.05
    """Redis's time for the same, including the broker's message."""
    archive_marker_bytes: float = 260.0
    """Bytes in Redis of a conversation that is in the archive."""
    archive_conversation_bytes: float = 950.0
    """Bytes in the archive's tables and indexes of a conversation, without its messages."""
    archive_message_overhead_bytes: float = 117.0
    """Bytes in the archive's tables and indexes of a message in addition to its JSON."""
    archive_turn_marker_bytes: float = 110.0
    """Bytes in Redis of an ended turn whose record is in the archive: its entry in a list."""
    archive_turn_bytes: float = 1050.0
    """Bytes in the archive's tables and indexes of an ended turn, without its messages."""


def read_costs(path: Path | None = None) -> Costs:
    """Read measured costs.

    Args:
        path: A file that ``python -m benchmarks.capacity --write`` wrote on your machine; the
            figures of the release when not given.

    Raises:
        ConfigurationError: The file cannot be read, or lacks something.
    """
    try:
        text = (path or files(__package__).joinpath(_MEASURED)).read_text(encoding="utf-8")
        return Costs.model_validate_json(text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot read {path}: {error.strerror}; expected a file of measured costs"
        ) from error
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise ConfigurationError(
            f"{path} has no valid measured costs: {place}: {fault['msg']}; "
            "`python -m benchmarks.capacity --write FILE` writes such a file"
        ) from error
