"""The consumers: start one with ``celery -A workers worker``."""
