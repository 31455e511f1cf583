"""Turns that lost their worker run in processes of their own, where their death harms nobody."""

from workers.isolation.messages import SuspectTurn
from workers.isolation.places import IsolatedTurns

__all__ = ["IsolatedTurns", "SuspectTurn"]
