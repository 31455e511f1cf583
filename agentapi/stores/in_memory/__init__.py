"""The turn store in memory, for eager mode."""
