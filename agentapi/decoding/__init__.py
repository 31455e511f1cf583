"""Reading data from outside: JSON values, stored records, and values shown in errors."""
