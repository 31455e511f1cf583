"""Running turns that lost their worker in processes of their own."""

from workers.isolation.places import IsolatedTurns

__all__ = ["IsolatedTurns"]
