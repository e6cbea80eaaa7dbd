"""What OpenAI and Anthropic promise of their answers: the types of their own SDKs, read strictly, and more.

The SDKs let fields be missing that may be null. The published schemas require them all the same: those stand
here, after openai-openapi's openapi.json and Anthropic's reference of the Messages API.
"""

import json
from collections.abc import Mapping
from typing import Any, Final, Literal

from anthropic.types import ErrorObject, ErrorResponse, Message, MessageTokensCount, RawMessageStreamEvent
from attrs import field, frozen
from openai.types import Completion, CompletionChoice, CreateEmbeddingResponse, Embedding, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.shared import ErrorObject as OpenAIErrorObject
from pydantic import BaseModel, TypeAdapter


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class OpenAIError(BaseModel):
    error: OpenAIErrorObject


class _UnfinishedChoice(CompletionChoice):
    # The published schema has one type for whole texts and chunks. A text that goes on has no reason to end.
    finish_reason: Literal["stop", "length", "content_filter"] | None  # type: ignore[assignment]


class CompletionChunk(Completion):
    choices: list[_UnfinishedChoice]  # type: ignore[assignment]


class _TooLarge(BaseModel):
    type: Literal["request_too_large"]
    message: str


class AnthropicError(ErrorResponse):
    # The SDK has no type for what the reference of errors has under 413.
    error: ErrorObject | _TooLarge  # type: ignore[assignment]


class _PackedEmbedding(Embedding):
    embedding: str  # type: ignore[assignment]  # base64, which the published schema forgets


class PackedEmbeddings(CreateEmbeddingResponse):
    data: list[_PackedEmbedding]  # type: ignore[assignment]


def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@frozen
class Official:
    """A type, and what has to be there besides: `[]` is each item of a list, `[x]` each whose type is x."""

    type: TypeAdapter[Any] = field(converter=_adapter)
    required: tuple[str, ...] = ()

    def check(self, data: bytes | str) -> Any:
        """The object that these bytes are. Raises ValidationError or AssertionError where they are not."""
        self.type.validate_json(data, strict=True)
        found = json.loads(data)
        assert [path for path in self.required if _lacks(found, path)] == [], found
        return found


def _lacks(value: Mapping[str, Any], path: str) -> bool:
    head, _, rest = path.partition(".")
    name, _, kind = head.partition("[")
    if name not in value:
        return True
    if not rest:
        return False
    inner = value[name] if kind else [value[name]]
    return any(_lacks(one, rest) for one in inner if kind in ("", "]") or one["type"] == kind[:-1])


CHAT: Final = Official(
    ChatCompletion,
    (
        *("usage", "choices[].finish_reason", "choices[].logprobs"),
        *("choices[].message.content", "choices[].message.refusal"),
    ),
)
CHAT_CHUNK: Final = Official(ChatCompletionChunk, ("choices[].delta", "choices[].finish_reason"))
COMPLETION: Final = Official(Completion, ("usage", "choices[].finish_reason", "choices[].logprobs"))
COMPLETION_CHUNK: Final = Official(CompletionChunk, ("choices[].finish_reason", "choices[].logprobs"))
EMBEDDINGS: Final = Official(CreateEmbeddingResponse)
PACKED_EMBEDDINGS: Final = Official(PackedEmbeddings)
MODEL: Final = Official(Model)
MODELS: Final = Official(ModelList)
RESPONSE: Final = Official(
    Response,
    (
        *("error", "incomplete_details", "instructions", "metadata", "temperature", "top_p"),
        *("status", "usage", "output[message].content[].logprobs"),
    ),
)
RESPONSE_EVENT: Final = Official(ResponseStreamEvent)
OPENAI_ERROR: Final = Official(OpenAIError, ("error.param", "error.code"))

MESSAGE: Final = Official(Message, ("stop_reason", "stop_sequence"))
MESSAGE_EVENT: Final = Official(RawMessageStreamEvent)
COUNT: Final = Official(MessageTokensCount)
ANTHROPIC_ERROR: Final = Official(AnthropicError, ("request_id",))
