"""gateway.formats.plain_messages: a role and a text, and anything else."""

from typing import Any

import pytest
from attrs import evolve

from gateway.formats.chat import Message
from gateway.formats.openai.requests import read_chat
from gateway.formats.plain_messages import Texts, plain_message, texts_of
from gateway.formats.sizes import size_of
from gateway.formats.translation import upstream_of

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


CHAT = [
    {"role": "system", "content": "Be brief."},
    {"content": "Où ? ﷺ", "role": "user"},
    {"role": "assistant", "content": ""},
]
MESSAGES = (Message("system", "Be brief."), Message("user", "Où ? ﷺ"), Message("assistant", ""))


def test_a_chat_of_texts_is_its_messages() -> None:
    """Whoever looks at them sees what was read one by one before."""
    texts = texts_of(CHAT)

    assert texts == MESSAGES
    assert texts == texts_of(list(CHAT))
    assert texts != MESSAGES[:2]
    assert texts is not None
    assert (len(texts), texts[0], texts[-1], texts[1:]) == (3, MESSAGES[0], MESSAGES[2], MESSAGES[1:])


@pytest.mark.parametrize(
    "other",
    [
        {"role": "tool", "content": "Hi"},
        {"role": "developer", "content": "Hi"},
        {"role": "user", "content": "Hi", "name": "Ann"},
        {"role": "user", "text": "Hi"},
        {"role": "user", "content": None},
        {"role": None, "content": "Hi"},
        "Hi",
    ],
)
def test_one_message_of_another_kind_makes_it_no_chat_of_texts(other: Any) -> None:
    """It has to be looked at, and the others be written beside it."""
    assert texts_of([*CHAT, other]) is None


def test_no_message_is_no_chat() -> None:
    """What that means, the surfaces know."""
    assert texts_of([]) is None


@pytest.mark.parametrize("kind", ["openai", "ollama"])
def test_texts_are_measured_and_sent_as_the_same_messages_are(kind: str) -> None:
    """Also in characters that a tokenizer may write out."""
    call = read_chat({"model": "m", "messages": CHAT})
    same = evolve(call, messages=MESSAGES)

    assert isinstance(call.messages, Texts)
    assert call == same
    assert same == call
    assert size_of(call) == size_of(same)
    assert upstream_of(kind, call, "m").request == upstream_of(kind, same, "m").request
