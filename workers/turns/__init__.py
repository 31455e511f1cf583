"""One turn in a worker: claim, run, record, commit."""
