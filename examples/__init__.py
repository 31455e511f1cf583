"""Examples that run without a model."""
