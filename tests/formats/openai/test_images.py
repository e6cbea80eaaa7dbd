"""gateway.formats.openai.images: an image in a URL, and never one behind it."""

import pytest

from gateway.errors import InvalidRequest
from gateway.formats.chat import Image
from gateway.formats.openai.images import data_url, image_of
from tests.formats.samples import PNG


@pytest.mark.parametrize(
    ("url", "image"),
    [
        pytest.param(f"data:image/png;base64,{PNG}", Image(PNG, "image/png"), id="declared"),
        pytest.param(f"data:image/jpg;base64,{PNG}", Image(PNG, "image/jpeg"), id="jpg is written jpeg"),
        pytest.param(f"data:image/svg+xml;base64,{PNG}", Image(PNG, "image/svg+xml"), id="any image type"),
        pytest.param(f"DATA:IMAGE/PNG;BASE64,{PNG}", Image(PNG, "image/png"), id="upper case"),
        pytest.param(f"data:image/png;charset=utf-8;base64,{PNG}", Image(PNG, "image/png"), id="parameters"),
        pytest.param(f"data:;base64,{PNG}", Image(PNG, "image/png"), id="no type: the first bytes tell"),
        pytest.param(
            f"data:image/png;base64,{PNG[:40]}\n {PNG[40:]}", Image(PNG, "image/png"), id="white space"
        ),
    ],
)
def test_a_data_url_holds_an_image(url: str, image: Image) -> None:
    """The base64 is kept as it came; backends decode it."""
    assert image_of(url, "url") == image


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://example.com/cat.png",
        "ftp://example.com/cat.png",
        "file:///etc/passwd",
        "/etc/passwd",
        "gopher://127.0.0.1:6379/_FLUSHALL",
        "data:image/png,%89PNG",
        "data:image/png;base64",
        "",
    ],
)
def test_no_other_url_is_taken(url: str) -> None:
    """Fetching what a caller names would reach into the operator's network (SSRF)."""
    with pytest.raises(InvalidRequest) as refused:
        image_of(url, "messages[0].content[1].image_url.url")

    assert refused.value.param == "messages[0].content[1].image_url.url"
    assert "data:image/png;base64" in refused.value.sentence


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("data:image/png;base64,", id="empty"),
        pytest.param("data:image/png;base64,not-base64!", id="another alphabet"),
        pytest.param("data:image/png;base64,iVBORw0KGg=iVBO", id="broken padding"),
        pytest.param("data:image/png;base64,ſſſſ", id="not ASCII"),
        pytest.param(f"data:text/html;base64,{PNG}", id="not an image"),
        pytest.param("data:;base64,aGVsbG8gd29ybGQ=", id="no type, and no image by its bytes"),
        pytest.param("data:image/png;base64," + "A" * (20 * 1024 * 1024 + 4), id="too large"),
    ],
)
def test_what_is_no_image_is_refused(url: str) -> None:
    """A backend would fail on it with an error that means nothing to the caller."""
    with pytest.raises(InvalidRequest):
        image_of(url, "url")


def test_what_is_written_is_read_back() -> None:
    """vLLM and llama.cpp take the same URLs that callers send."""
    image = Image(PNG, "image/png")

    assert image_of(data_url(image), "url") == image
