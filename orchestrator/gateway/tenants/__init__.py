"""Tenants: API keys, quotas, and what each of them stores."""
