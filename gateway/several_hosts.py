"""URLs of stores, which may name several hosts, split into their parts.

No standard has such hosts, and the `urlsplit` of newer Pythons refuses an IPv6 address behind another one.
"""

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

_AUTHORITY: Final = re.compile(r"(?<=://)[^/?#]*")


def split_url(url: str) -> SplitResult:
    """As `urlsplit`, with all that stands for the hosts, credentials included, unread as `netloc`."""
    found = _AUTHORITY.search(url)
    if found is None:
        return urlsplit(url)
    return urlsplit(url[: found.start()] + url[found.end() :])._replace(netloc=found[0])
