"""Tenants: API keys, ids, rate limits, concurrency, and what each tenant stores."""
