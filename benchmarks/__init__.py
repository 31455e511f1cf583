"""What the runtime costs: ``make bench``; figures are in docs/performance.md."""
