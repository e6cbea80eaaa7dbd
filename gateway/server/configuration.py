"""What we tell hypercorn, whose defaults are for a server that is open to the world."""

from hypercorn.config import Config


def configuration(bind: str) -> Config:
    """Plain HTTP on `bind`, such as `127.0.0.1:8080`; TLS is the proxy's. No log of its own: ours is JSON."""
    config = Config()
    config.bind = [bind]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    return config
