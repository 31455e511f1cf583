"""Where conversations go that nobody has used for long: a database outside of Redis."""
