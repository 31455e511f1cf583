"""Workers share the sweep of a fleet on a real Redis."""

from __future__ import annotations

from collections.abc import Callable

from agentapi.ids import partition_of
from agentapi.stores.groups import SWEEP_GROUPS, group_of
from tests.faults import until
from tests.integration.fleet import Fleet
from workers.errands import Errands
from workers.outage import Outage
from workers.upkeep.sweeper import Sweeper

BEAT = 1.0
TURNS = 48
ALL = frozenset(range(SWEEP_GROUPS))


def sweeper_of(fleet: Fleet, name: str) -> Sweeper:
    """A worker's, which sweeps when it is told to."""
    settings = fleet.app.settings.model_copy(update={"sweep_interval": BEAT})
    store, dispatcher = fleet.app.store, fleet.app.dispatcher
    errands = Errands(settings=settings, store=store, dispatcher=dispatcher)
    sweeper = Sweeper(settings, store, dispatcher, errands, Outage())
    sweeper._candidate = name
    return sweeper


def test_three_workers_share_the_sweep_and_two_go_on_without_the_third(
    make_fleet: Callable[..., Fleet],
) -> None:
    fleet = make_fleet(dispatch_grace=0.05, sweep_interval=60)
    fleet.app.dispatcher.holds = lambda queue: False  # type: ignore[method-assign]
    one, two, three = sweepers = [sweeper_of(fleet, name) for name in ("one", "two", "three")]

    def shared(*workers: Sweeper) -> bool:
        for sweeper in workers:
            sweeper.sweep()
        sizes = sorted(len(sweeper.groups) for sweeper in workers)
        return frozenset().union(*(s.groups for s in workers)) == ALL and sizes[-1] < sizes[0] + 2

    def swept(*workers: Sweeper) -> dict[str, int]:
        """Of as many turns, each one's part."""
        first, parts = len(fleet.sent), dict.fromkeys((w._candidate for w in workers), 0)
        turns = {fleet.enqueue("napper", "hi").turn_id for _ in range(TURNS)}

        def all_are_sent() -> bool:
            for sweeper in workers:
                before = len(fleet.sent)
                sweeper.sweep()
                parts[sweeper._candidate] += len(fleet.sent) - before
                sent = {group_of(partition_of(w.conversation_id)) for w in fleet.sent[before:]}
                assert sent <= sweeper.groups
            return {wakeup.turn_id for wakeup in fleet.sent[first:]} >= turns

        until(all_are_sent, what="wake-ups of all turns")
        return parts

    until(lambda: shared(*sweepers), what="three shares")
    assert sum(sweeper.leads for sweeper in sweepers) == 1
    assert all(swept(*sweepers).values())
    # From here on the second one does not call any more.
    until(lambda: shared(one, three), what="its groups in other hands")
    assert all(swept(one, three).values())
    # It was only paused. What it believes to have, others have by now: it gets a new share.
    until(lambda: shared(*sweepers), what="three shares again")
    # One that ends in order leaves its groups at once, with the lead.
    one._resign()
    three.sweep()
    two.sweep()
    assert two.groups | three.groups == ALL
    assert two.leads is not three.leads
