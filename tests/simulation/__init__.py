"""The library under a seeded event loop: any interleaving, latency, fault and clock, repeatable."""
