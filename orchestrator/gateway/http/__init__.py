"""HTTP: connections, bodies, authentication, errors and server-sent events."""
