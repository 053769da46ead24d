"""How fast the library is, beside plain sqlite3 and its peers on the same disk in the same run."""
