"""Sounds in messages, for the models that hear: OpenAI's `input_audio`, always by value.

Within the gateway they travel with the images, as on Ollama's wire, and are told apart by their media type.
"""

from typing import Final

from attrs import evolve

from gateway.errors import UnsupportedField
from gateway.formats.chat import Image
from gateway.formats.fields import Fields
from gateway.formats.images import read_image
from gateway.model import JsonObject

# OpenAI's two formats, which llama.cpp and vLLM know too.
_MEDIA_TYPES: Final = {"wav": "audio/wav", "mp3": "audio/mpeg"}
_FORMATS: Final = {media_type: name for name, media_type in _MEDIA_TYPES.items()}


def sound_of(part: Fields) -> Image:
    """The sound of a part `input_audio`. Raise InvalidRequest naming the field that is wrong."""
    audio = part.required_object("input_audio")
    media_type = _MEDIA_TYPES[audio.required_choice("format", *_MEDIA_TYPES)]
    return evolve(read_image(audio.raw("data"), audio.path("data")), media_type=media_type)


def is_sound(image: Image) -> bool:
    return image.media_type.startswith("audio/")


def sound_part(sound: Image) -> JsonObject:
    """The part of a message for a backend. Raise UnsupportedField for what these servers don't hear."""
    name = _FORMATS.get(sound.media_type)
    if name is None:
        raise UnsupportedField(
            f"A sound of type {sound.media_type} can't be heard by this model: send WAV or MP3.",
            param="messages",
        )
    return {"type": "input_audio", "input_audio": {"data": sound.base64, "format": name}}
