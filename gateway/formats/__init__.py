"""Formats: wire shapes, and the pure machines that read and write them, fed with bytes and objects."""
