"""A mixed load with faults for a given time, and what must not grow meanwhile."""
