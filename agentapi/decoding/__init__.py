"""Data from outside: JSON values, stored records, and values quoted in errors."""
