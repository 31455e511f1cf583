"""The native API: turns, approvals, and a stream of a turn's own events."""
