"""A conversation: its messages, their attachments, and the part that a model sees."""
