"""Where events go: logs, and the batches that reach the database."""
