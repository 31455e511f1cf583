"""Conversations copied out and brought back, and a person's data deleted."""
