"""The end of the pipeline: the one catch-all endpoint and the relay that pumps its answers."""
