"""Metrics: what a process counts and measures about turns, for Prometheus.

A process that serves no metrics has a recorder that does nothing. A program of yours that enqueues
turns and serves metrics of its own adds these with `record_into`.
"""

from agentapi.metrics.recorder import Metric, NoMetrics, Recorder, install, recorder

__all__ = ["Metric", "NoMetrics", "Recorder", "install", "record_into", "recorder"]


def record_into(registry: object) -> None:
    """Record this process's metrics in a registry of ``prometheus_client``.

    For a program that enqueues turns and serves a ``/metrics`` of its own. Workers and the gateway
    do this themselves when their port for metrics is set.

    Args:
        registry: Such as ``prometheus_client.REGISTRY``. Each registry may be given once.

    Raises:
        ConfigurationError: The extra ``metrics`` is not installed.
        ValueError: The registry has these metrics already.
    """
    # Here: only processes that record need the package.
    from agentapi.metrics.prometheus import PrometheusRecorder

    install(PrometheusRecorder(registry))
