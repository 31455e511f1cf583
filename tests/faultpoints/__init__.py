"""Faults by plan: a fault at each point of a turn's way through worker, gateway and producer."""
