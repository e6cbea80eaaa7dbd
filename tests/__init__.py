"""Tests of the gateway; the folders mirror those of the package."""
