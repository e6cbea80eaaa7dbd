"""Images in messages: `data:` URLs alone. Nothing is ever fetched for a caller."""

import re
from typing import Final

from attrs import evolve

from gateway.errors import InvalidRequest
from gateway.formats.chat import Image
from gateway.formats.images import read_image

# RFC 2397: the media type may be left out, and parameters may follow it.
_DATA_URL: Final = re.compile(
    r"data:(?P<media_type>[\w.+-]+/[\w.+-]+)?(?:;[\w.+-]+=[\w.+-]*)*;base64,", re.IGNORECASE | re.ASCII
)


def image_of(url: str, param: str) -> Image:
    """The image that a `data:` URL holds; InvalidRequest, which names `param`, for every other URL.

    The media type is the one declared, or what the first bytes tell where none is.
    """
    match = _DATA_URL.match(url)
    if match is None:
        raise InvalidRequest(
            f"'{param}' must be a URL such as data:image/png;base64,…: this gateway fetches no images.",
            param=param,
        )
    image = read_image("".join(url[match.end() :].split()), param)
    media_type = (match["media_type"] or image.media_type).lower()
    if not media_type.startswith("image/"):
        raise InvalidRequest(f"'{param}' must be an image, not {media_type[:40]}.", param=param)
    return evolve(image, media_type="image/jpeg" if media_type == "image/jpg" else media_type)


def data_url(image: Image) -> str:
    return f"data:{image.media_type};base64,{image.base64}"
