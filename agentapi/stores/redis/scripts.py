"""The Lua scripts of the turn protocol, in `agentapi/stores/lua`."""

from __future__ import annotations

from typing import Final

from agentapi.redis.scripts import ScriptSet

READERS: Final = (
    *(
        "about",
        "backlog",
        "count",
        "list",
        "load",
        "measure",
        "overdue",
        "page",
        "placed",
        "read",
        "seek",
        "untold",
    ),
)
"""Scripts that change no state covered by the protocol's promises."""

TRANSITIONS: Final = (
    "agree",
    "answer",
    "append",
    "arrive",
    "arrive_turn",
    "cancel",
    "claim",
    "commit",
    "continue_from",
    "decide",
    "deliver",
    "depart",
    "depart_turns",
    "drop",
    "elect",
    "emit",
    "enqueue",
    "erase",
    "expel_turns",
    "expire",
    "forget",
    "fork",
    "hasten",
    "hold",
    "leftovers",
    "open",
    "orphan",
    "pack",
    "pack_turns",
    "park",
    "perish",
    "record",
    "redispatch",
    "relabel",
    "release",
    "remove",
    "renew",
    "reset",
    "resign",
    "restore",
    "retry",
    "rouse",
    "stage",
    "steer",
    "summarise",
    "suspend",
    "tell",
    "told",
    "unlist_turns",
    "wipe",
)
"""One script for each change of state."""

SCRIPTS: Final = ScriptSet("agentapi.stores", (*TRANSITIONS, *READERS))
