"""Suspect turns, which lost their worker, run in processes of their own: a crash harms no other."""

from workers.isolation.messages import SuspectTurn
from workers.isolation.places import IsolatedTurns

__all__ = ["IsolatedTurns", "SuspectTurn"]
