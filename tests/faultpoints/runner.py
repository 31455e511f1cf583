"""Carries plans out, several at a time, each cell on a database of its own."""

from __future__ import annotations

import queue
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from orchestrator.stack import start_valkey
from tests.faultpoints.cell import Cell, Planned, Result
from tests.faultpoints.plans import SCENARIOS
from tests.faultpoints.processes import Zygote

DRY_RUNS: Final = 3
"""How often a scenario is run without faults: how often a point is passed varies a little."""

DATABASES: Final = 16
"""Of one Redis, by default."""


class Runner:
    """A Redis, a zygote, and cells that share the work."""

    def __init__(self, folder: Path, cells: int) -> None:
        assert 0 < cells <= DATABASES
        self._folder = folder
        self._valkey, url = start_valkey(folder)
        self._url = url.rpartition("/")[0]
        self._zygote = Zygote(folder)
        self._count = cells
        self._cells: dict[int, Cell] = {}

    def close(self) -> None:
        for cell in self._cells.values():
            cell.close()
        self._zygote.close()
        self._valkey.stop()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def trace(self, scenario: str) -> tuple[dict[str, Counter[str]], list[Result]]:
        """How often each role passes each of its points in a scenario without faults."""
        most: dict[str, Counter[str]] = {role: Counter() for role in SCENARIOS[scenario]}
        results = self.run([Planned(scenario=scenario, role="") for _ in range(DRY_RUNS)])
        for result in results:
            for role, points in most.items():
                points |= result.passed.get(role, Counter())
        return most, results

    def run(
        self, plans: Sequence[Planned], heard: Callable[[Result], None] = lambda _: None
    ) -> list[Result]:
        """Carry them out; in what order, depends.

        Args:
            plans: What is to happen.
            heard: Told of each result.
        """
        waiting: queue.SimpleQueue[Planned] = queue.SimpleQueue()
        for plan in plans:
            waiting.put(plan)
        results: list[Result] = []
        faults: list[BaseException] = []

        def work(number: int) -> None:
            try:
                cell = self._cell(number)
                while not faults:
                    result = cell.run(waiting.get_nowait())
                    results.append(result)
                    heard(result)
            except queue.Empty:
                pass
            except BaseException as error:
                faults.append(error)

        count = min(self._count, len(plans))
        threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if faults:
            raise faults[0]
        return results

    def _cell(self, number: int) -> Cell:
        if number not in self._cells:
            url = f"{self._url}/{number}"
            self._cells[number] = Cell(self._zygote, url, self._folder / f"cell{number}")
        return self._cells[number]
