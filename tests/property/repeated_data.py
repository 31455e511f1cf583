"""The transitions of backups and deletions, for test_repeats.py."""

from __future__ import annotations

from typing import Any

from agentapi.conversation.messages import UserMessage, dumps
from agentapi.stores.data import Restored, Staging, Whose
from tests.conformance.stores import Bench


def data_walk(bench: Bench) -> None:
    """Conversations are copied out and brought back, and a person's data deleted."""
    data, acme = bench.store.data, {"created": "1000", "tenant": "acme"}
    said = [dumps(UserMessage(content=f"message {n}")) for n in range(3)]
    first = Staging(conversation_id="brought", operation="first")
    assert data.stage(first, 0, said[:2], {"name": b"bytes"})
    assert data.stage(first, 2, said[2:])
    assert not data.stage(first, 9, said)

    def restore(staging: Staging, **more: Any) -> Restored:
        options = {"messages": 3, "digest": "digest", "replace": False, **more}
        return data.restore(staging, {**acme, **options.pop("fields", {})}, **options)

    assert restore(first) is Restored.IMPORTED
    other = Staging(conversation_id="brought", operation="other")
    assert restore(other) is Restored.KNOWN
    assert restore(other, digest="another") is Restored.EXISTS
    assert restore(other, digest="another", fields={"tenant": "evil"}) is Restored.TENANT
    assert restore(other, digest="another", replace=True) is Restored.LOST
    turn_id = bench.enqueue("brought", tenant_id="acme", user_id="anna")
    assert restore(other, digest="another", replace=True) is Restored.BUSY
    [turn] = data.turns(Whose(user_id="anna"))
    assert data.erase(turn, "early") is None
    bench.complete(bench.claim(turn_id, "brought").lease)
    assert data.stage(other, 0, said[:1])
    assert restore(other, messages=1, digest="another", replace=True) is Restored.IMPORTED
    # One store keeps the history that was replaced for the turns that refer to it.
    assert data.erase(turn, "op") in (0, 2)
    again = bench.enqueue("brought", tenant_id="acme", user_id="anna")
    bench.complete(bench.claim(again, "brought").lease)
    [turn] = data.turns(Whose(user_id="anna"))
    assert data.erase(turn, "now") == 2
    assert data.erase_ends(Whose(user_id="anna")) in (0, 2)
    assert len(bench.store.history("brought")) == 1
