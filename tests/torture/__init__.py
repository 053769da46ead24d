"""The battery: faults injected into real processes, files and disks, and what became of the jobs."""
