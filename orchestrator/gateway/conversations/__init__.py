"""A tenant's conversations: records, history, forks and deletion."""
