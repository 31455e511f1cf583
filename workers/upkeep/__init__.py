"""Services that keep a worker and its fleet healthy: heartbeat, liveness and the sweep."""
