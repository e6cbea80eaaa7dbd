"""What operators ask a process, on an address of its own: metrics and probes."""
