"""What follows when prompts were destroyed, or are to be kept for less time: their rows, page by page."""

from collections.abc import AsyncIterator

import click

from gateway.cli.output import progress
from gateway.cli.stores import Stores
from gateway.model import Key
from gateway.storage.prompts import Destroyed, scrub


async def clear(stores: Stores, destroyed: Destroyed) -> None:
    """Delete what nobody can open any more, and tell where some of it may still be for a while."""
    total = destroyed.prompts + destroyed.data_keys
    await _watched("Deleting what was destroyed", total, stores.prompts.clear())
    if not await scrub(stores.database):
        click.echo(
            "Somebody reads the database, an export perhaps: until that ends, SQLite's write-ahead log has "
            "what was destroyed. A running gateway empties it within half a minute of the end.",
            err=True,
        )


async def shorten(stores: Stores, key: Key) -> None:
    """Let what is kept of a key end in the time that it says now."""
    total = (await stores.prompts.count(key)).prompts
    await _watched("Shortening what is kept", total, stores.prompts.shorten(key))


async def _watched(sentence: str, total: int, pages: AsyncIterator[int]) -> None:
    with progress(sentence, total) as advance:
        async for count in pages:
            advance(count)
