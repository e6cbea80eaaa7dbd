"""Rules: what may be done, said without doing it. Pure: no clock, no randomness, no await, no logging."""
