"""Export and import of conversations, and deletion of a user's data."""
