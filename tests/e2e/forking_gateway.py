"""A process that serves a gateway in a child of its own for each line that it reads, one after the other.

What takes a gateway its second to start is the reading of its code: a fork has it. Prints `pid port` of
each child once it listens, and waits for its end.
"""

import os
import sys

from gateway.config import load
from gateway.process import serve_until_stopped
from gateway.sinks import logs
from gateway.storage.migrations import migrate


def serve() -> None:
    settings = load()
    logs.configure(settings.log_level)
    serve_until_stopped(settings, lambda addresses: print(os.getpid(), addresses[0][1], flush=True))


if __name__ == "__main__":
    migrate(load().database_url)
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            serve()
            os._exit(0)
        os.waitpid(child, 0)
