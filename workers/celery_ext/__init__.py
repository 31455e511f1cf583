"""What the worker replaces in Celery: pool, consumer, request and remote control."""
