"""Two neighbouring releases side by side."""
