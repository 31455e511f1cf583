"""The message that wakes a worker, and kombu's Redis transport for both of its ends."""
