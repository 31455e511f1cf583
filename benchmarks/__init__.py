"""Measures what the runtime costs: ``make bench``; docs/performance.md has the figures."""
