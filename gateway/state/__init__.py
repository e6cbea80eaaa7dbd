"""Where state lives that changes while serving: keys checked already, hashing, the secret."""
