"""What must survive a kill -9: a local append-only journal, and its way into the database."""
