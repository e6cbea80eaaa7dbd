"""What may be wrong with a gateway and all around it: one sentence and one remedy for each."""
