"""A conversation: its messages, their attachments, and which of them a model sees."""
