"""Tests that need a Debian package: ``make test-system``."""
