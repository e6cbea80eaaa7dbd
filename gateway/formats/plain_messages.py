"""Messages that are a text and no more, as most are: read without looking for anything else."""

from collections.abc import Mapping
from typing import Any, Final

from gateway.formats.chat import Message

_PLAIN: Final = frozenset({"role", "content"})


def plain_message(value: Any, roles: Mapping[str, str]) -> Message | None:
    """The message that `value` is; None for any that is more than a role and a text, and for what is none.

    `roles`: who may say so, by the surface's word, and what the house calls it.
    """
    if type(value) is not dict or value.keys() != _PLAIN:
        return None
    role, content = value["role"], value["content"]
    if type(role) is not str or type(content) is not str or role not in roles:
        return None
    return Message(roles[role], content)
