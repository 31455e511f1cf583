"""Checks of an installation: the same ones for a worker's start and for `agentapi doctor`."""
