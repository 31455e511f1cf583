"""Redis: connections, keys, and Lua scripts."""
