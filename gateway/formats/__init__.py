"""Formats: wire shapes and the machines that read and write them. Pure: fed with bytes and objects, no I/O."""
