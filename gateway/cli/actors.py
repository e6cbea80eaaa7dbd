"""Who runs a command: what an admin action is noted as the doing of."""

import os
import pwd

from gateway.storage.actions import Actor


def this_actor() -> Actor:
    """The user of this process and its machine; behind sudo also who called it.

    SUDO_USER is believed of root only: anybody else sets it as they like, and may as well be themselves.
    """
    user = _name_of(os.geteuid())
    caller = os.environ.get("SUDO_USER", "")
    if os.geteuid() == 0 and caller.isprintable() and caller not in ("", user):
        user = f"{user} (sudo by {caller[:64]})"
    return Actor(user, os.uname().nodename)


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's user has a number, and often no name
        return f"uid {uid}"
