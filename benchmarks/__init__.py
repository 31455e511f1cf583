"""Benchmarks: run them by hand; they print figures."""
