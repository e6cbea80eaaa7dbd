"""Benchmarks: run by `make bench`, never by the tests. Machines are noisy, so compare within one run."""
