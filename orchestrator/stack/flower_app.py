"""The app that the ``celery flower`` command loads: the producers' side is enough to watch."""

from __future__ import annotations

from agentapi import load_settings
from orchestrator.broker import producer_app

app = producer_app(load_settings())
