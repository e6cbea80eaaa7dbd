"""gateway.formats.images: base64, and what kind of file it is."""

from base64 import b64encode

import pytest

from gateway.errors import InvalidRequest
from gateway.formats.chat import Image
from gateway.formats.images import MAX_BASE64_CHARACTERS, MAX_IMAGES, read_image, read_images

HEADS = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff\xe0", "image/jpeg"),
    (b"GIF89a", "image/gif"),
    (b"GIF87a", "image/gif"),
    (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "image/webp"),
    (b"BM\x00\x00", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"\x00\x00\x00\x1cftypavif", "image/avif"),
    (b"\x00\x00\x00\x1cftypheic", "image/heic"),
    (b"RIFF\x10\x00\x00\x00WAVEfmt ", "audio/wav"),
    (b"ID3\x04", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"anything else", "application/octet-stream"),
]

REFUSED = [
    pytest.param(None, "a string of base64", id="null"),
    pytest.param("", "a string of base64", id="empty"),
    pytest.param({"url": "x"}, "a string of base64", id="an object"),
    pytest.param("data:image/png;base64,aGk=", "without the 'data:' prefix", id="a data URL"),
    pytest.param("http://169.254.169.254/", "not valid base64", id="a URL"),
    pytest.param("/etc/passwd", "not valid base64", id="a path"),
    pytest.param("aGk", "not valid base64", id="no padding"),
    pytest.param("aGk=\n", "not valid base64", id="a line feed"),
    pytest.param("aG k=", "not valid base64", id="a space"),
    pytest.param("_-8=", "not valid base64", id="the alphabet of URLs"),
    pytest.param("aGk=aGk=", "not valid base64", id="padding inside"),
    pytest.param("é===", "not valid base64", id="a letter beyond ASCII"),
    pytest.param("A" * (MAX_BASE64_CHARACTERS + 4), "longer than", id="too long"),
]


@pytest.mark.parametrize(("head", "media_type"), HEADS, ids=repr)
def test_the_first_bytes_tell_the_media_type(head, media_type):
    """Ollama's clients do not say what they send; other backends want to know."""
    text = b64encode(head + b"\x00" * 40).decode()

    assert read_image(text, "images[0]") == Image(text, media_type)


@pytest.mark.parametrize(("value", "because"), REFUSED)
def test_only_plain_base64_is_an_image(value, because):
    """Nothing is ever fetched: URLs and paths are no base64."""
    with pytest.raises(InvalidRequest, match=because) as raised:
        read_image(value, "messages[0].images[2]")

    assert raised.value.param == "messages[0].images[2]"


def test_there_are_not_too_many():
    """Each costs the backend far more than it costs the caller."""
    with pytest.raises(InvalidRequest, match="64 images at most"):
        read_images(["aGk="] * (MAX_IMAGES + 1), "images")
