"""Following the events of turns, from a thread and from an event loop."""
