"""Messages that are a text and no more, as most are: read without looking for anything else."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, overload

from gateway.errors import InvalidRequest
from gateway.formats.chat import Message
from gateway.formats.fields import Fields
from gateway.formats.images import MAX_IMAGES
from gateway.model import JsonObject

_PLAIN_FIELDS: Final = 2
# What every surface and every backend calls so, and the house too.
_ROLES: Final = {role: role for role in ("system", "user", "assistant")}


class Texts(Sequence[Message]):
    """Messages that are all plain, as they came: each is made a `Message` when it is asked for.

    To measure them and to hand them on, as most chats are, takes none. Equal to a tuple of the same messages.
    """

    __slots__ = ("written",)

    def __init__(self, written: list[JsonObject]) -> None:
        self.written = written
        """As every backend reads them: `role` and `content`. Not to be changed."""

    def contents(self) -> list[str]:
        return [value["content"] for value in self.written]

    def __len__(self) -> int:
        return len(self.written)

    def __iter__(self) -> Iterator[Message]:
        return (Message(value["role"], value["content"]) for value in self.written)

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Message, ...]: ...
    def __getitem__(self, index: int | slice) -> Message | tuple[Message, ...]:
        if isinstance(index, slice):
            return tuple(Texts(self.written[index]))
        return Message(**self.written[index])

    def __eq__(self, other: object) -> bool:
        return tuple(self) == (tuple(other) if isinstance(other, Texts) else other)

    __hash__ = None  # type: ignore[assignment]


def messages_in(
    body: Fields, at_most: int, roles: Mapping[str, str], read: Callable[[Fields], Message]
) -> Sequence[Message]:
    """The field `messages`: those that say no more than `plain_message` takes, and others by `read`.

    Raises InvalidRequest naming the field that is wrong, also for more messages or images than may be.
    """
    values = body.array("messages", at_most)
    if (texts := texts_of(values)) is not None:
        return texts
    messages: list[Message] = []
    images = 0
    for number, value in enumerate(values):
        message = plain_message(value, roles)
        if message is None:
            message = read(Fields(value, f"{body.path('messages')}[{number}]"))
            images += len(message.images)
        messages.append(message)
    if images > MAX_IMAGES:
        raise InvalidRequest(f"'messages' may hold {MAX_IMAGES} images at most.", param="messages")
    return tuple(messages)


def texts_of(values: Sequence[Any]) -> Texts | None:
    """All messages of a chat, where each is plain; None where one is not, or there is none."""
    for value in values:
        if not _is_plain(value, _ROLES):
            return None
    return Texts(list(values)) if values else None


def plain_message(value: Any, roles: Mapping[str, str]) -> Message | None:
    """The message that `value` is; None for any that is more than a role and a text, and for what is none.

    `roles`: who may say so, by the surface's word, and what the house calls it.
    """
    return Message(roles[value["role"]], value["content"]) if _is_plain(value, roles) else None


def _is_plain(value: Any, roles: Mapping[str, str]) -> bool:
    return (
        type(value) is dict
        and len(value) == _PLAIN_FIELDS
        and type(value.get("content")) is str
        and type(role := value.get("role")) is str
        and role in roles
    )
