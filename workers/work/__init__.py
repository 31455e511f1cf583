"""What a worker does for a turn, by the turn's kind."""
