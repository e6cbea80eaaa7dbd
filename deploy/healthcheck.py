#!/opt/neuronetz-gateway/bin/python -IS
"""Whether the gateway of this container serves: exit code 0 or 1. `healthcheck /readyz` asks for readiness.

Of the standard library alone, and little of it: it runs every few seconds, for good. It asks
the address for operators, where it leaves no rows in the audit log; that for callers where there is no other.
"""

import os
import socket
import sys

TIMEOUT_S = 2.5


def main() -> int:
    """The engine runs it within the container, so every address is reached at 127.0.0.1."""
    path = sys.argv[1] if len(sys.argv) > 1 else "/healthz"
    bind = os.environ.get("GATEWAY_OPS_BIND", "127.0.0.1:9090")
    if bind.lower() == "off":
        bind = os.environ.get("GATEWAY_BIND", "127.0.0.1:8080")
    port = int(bind.rpartition(":")[2])
    request = f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(request.encode("ascii"))
            status_line = connection.makefile("rb").readline()
    except OSError as error:
        print(f"no answer from port {port}: {error}")
        return 1
    print(status_line.decode("latin-1").strip())
    return 0 if status_line.split()[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
