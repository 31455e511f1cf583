"""The gateway's own API: turns and approvals."""
