"""Images as they travel: standard base64 in a JSON string, with the media type told by the first bytes.

Ollama's field `images` also carries sounds for the models that hear; they are told apart the same way.
"""

import binascii
from typing import Any, Final

from gateway.errors import InvalidRequest
from gateway.formats.chat import Image

# More than any model takes, few enough that decoding them all can't stall anybody else.
MAX_IMAGES: Final = 64
MIB: Final = 1024 * 1024
MAX_BASE64_CHARACTERS: Final = 20 * MIB

# Enough for every signature below, and a whole number of base64 quartets.
_HEAD_CHARACTERS: Final = 32
UNKNOWN_TYPE: Final = "application/octet-stream"

# (offset, the bytes there, media type): signatures from https://mimesniff.spec.whatwg.org, section 6.
_SIGNATURES: Final = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"GIF87a", "image/gif"),
    (0, b"GIF89a", "image/gif"),
    (8, b"WEBP", "image/webp"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftypheic", "image/heic"),
    (8, b"WAVE", "audio/wav"),
    (0, b"ID3", "audio/mpeg"),
    (0, b"\xff\xfb", "audio/mpeg"),
    (0, b"fLaC", "audio/flac"),
    (0, b"OggS", "audio/ogg"),
)


def media_type_of(head: bytes) -> str:
    """What a file is by its first bytes; `application/octet-stream` when they tell nothing."""
    for offset, signature, media_type in _SIGNATURES:
        if head.startswith(signature, offset):
            return media_type
    return UNKNOWN_TYPE


def read_images(values: list[Any], path: str) -> tuple[Image, ...]:
    """Plain base64 strings, as Ollama's clients send them. `path` is where the array stands in the body."""
    if len(values) > MAX_IMAGES:
        raise InvalidRequest(f"'{path}' may hold {MAX_IMAGES} images at most.", param=path)
    return tuple(read_image(value, f"{path}[{index}]") for index, value in enumerate(values))


def read_image(value: Any, path: str) -> Image:
    """One image. Raise InvalidRequest for anything but standard base64 without white space."""
    if not isinstance(value, str) or not value:
        raise InvalidRequest(f"'{path}' must be a string of base64.", param=path)
    if value.startswith("data:"):
        raise InvalidRequest(f"'{path}' must be plain base64, without the 'data:' prefix.", param=path)
    if len(value) > MAX_BASE64_CHARACTERS:
        raise InvalidRequest(f"'{path}' is longer than {MAX_BASE64_CHARACTERS} characters.", param=path)
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        raise InvalidRequest(f"'{path}' is not valid base64 of the standard alphabet.", param=path) from None
    return Image(value, media_type_of(binascii.a2b_base64(value[:_HEAD_CHARACTERS])))
