"""gateway.formats.plain_messages: a role and a text, and anything else."""

from typing import Any

import pytest

from gateway.formats.chat import Message
from gateway.formats.plain_messages import plain_message

ROLES = {"user": "user", "developer": "system"}


def test_a_role_and_a_text_are_a_message() -> None:
    """The role is told in the house's word."""
    assert plain_message({"role": "developer", "content": "Hi"}, ROLES) == Message("system", "Hi")


@pytest.mark.parametrize(
    "value",
    [
        {"role": "user", "content": "Hi", "name": "Ann"},
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "tool", "content": "Hi"},
        {"role": "User", "content": "Hi"},
        {"role": ["user"], "content": "Hi"},
        ["role", "content"],
        "Hi",
        None,
    ],
)
def test_whatever_else_there_is_has_to_be_looked_at(value: Any) -> None:
    """Also what is no message, so that its caller is told where."""
    assert plain_message(value, ROLES) is None
