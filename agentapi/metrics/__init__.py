"""Metrics: what a process counts and measures about turns, for Prometheus.

A process that serves no metrics has a recorder that does nothing. Your own program that enqueues
turns and serves its own metrics adds these with `record_into`.
"""

from agentapi.metrics.recorder import Metric, NoMetrics, Recorder, install, recorder

__all__ = ["Metric", "NoMetrics", "Recorder", "install", "record_into", "recorder"]


def record_into(registry: object) -> None:
    """Record this process's metrics in a registry of ``prometheus_client``.

    For a program that enqueues turns and serves its own ``/metrics``. Workers and the gateway do
    this themselves when their port for metrics is set.

    Args:
        registry: The registry, such as ``prometheus_client.REGISTRY``. It may be given only once.

    Raises:
        ConfigurationError: The extra ``metrics`` is not installed.
        ValueError: The registry has these metrics already.
    """
    # Imported here, because only processes that record metrics need the package.
    from agentapi.metrics.prometheus import PrometheusRecorder

    install(PrometheusRecorder(registry))
