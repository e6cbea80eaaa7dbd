"""What we tell hypercorn, whose defaults are for a server that is open to the world."""

import math

from hypercorn.config import Config


def configuration(bind: str) -> Config:
    """Plain HTTP on `bind`, such as `127.0.0.1:8080`; TLS is the proxy's. No log of its own: ours is JSON."""
    config = Config()
    config.bind = [bind]
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    # What a killed process left behind is drained first. A start that is cut short would begin there again.
    config.startup_timeout = math.inf
    return config
