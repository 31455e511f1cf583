"""The turn store on Redis."""
