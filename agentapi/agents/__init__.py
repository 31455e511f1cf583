"""What users define: hooks, typed output, and the registry of agents."""
