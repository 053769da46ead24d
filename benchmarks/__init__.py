"""How fast the library is, beside plain sqlite3 on the same disk in the same run: `python -m benchmarks`."""
