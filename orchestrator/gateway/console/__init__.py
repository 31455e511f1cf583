"""The console: pages of the gateway on which people watch turns and decide."""
