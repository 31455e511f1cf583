"""Builds the documentation from the code: `make docs`."""
