"""Follow the events of turns, from threads and from event loops."""
