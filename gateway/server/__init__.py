"""The HTTP/1.1 server: strict connections, a bounded drain, hypercorn's configuration and lifespan."""
