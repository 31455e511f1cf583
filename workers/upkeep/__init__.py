"""What keeps a worker and its fleet healthy: heartbeat, liveness and the sweep."""
