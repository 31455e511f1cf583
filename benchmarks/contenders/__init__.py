"""The compared systems. Each module runs in its own environment, as worker or producer."""
