"""The backends of this process, by the operator's list: those that stay keep their connections."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from attrs import evolve

from gateway.backends.answers import BackendTimeouts
from gateway.backends.http import HttpBackend
from gateway.config import BackendConfig

Pair = tuple[HttpBackend, BackendConfig]


class Pool:
    """`pairs` are in the operator's order. `start` and `stop` in the event loop; `set` in between."""

    def __init__(
        self, configs: Sequence[BackendConfig], timeouts: BackendTimeouts, *, is_thin: bool = True
    ) -> None:
        self._timeouts = timeouts
        self._is_thin = is_thin
        self._retiring: dict[asyncio.Task[None], HttpBackend] = {}
        self._coming: list[HttpBackend] = []
        self.pairs: tuple[Pair, ...] = tuple((self._built(config), config) for config in configs)

    def _built(self, config: BackendConfig) -> HttpBackend:
        return HttpBackend(config, self._timeouts, is_thin=self._is_thin)

    @property
    def backends(self) -> tuple[HttpBackend, ...]:
        return tuple(backend for backend, _ in self.pairs)

    async def start(self) -> None:
        for backend in self.backends:
            await backend.open()

    async def stop(self) -> None:
        for task in self._retiring:
            task.cancel()
        for backend in (*self.backends, *self._coming, *self._retiring.values()):
            await backend.close()

    async def set(
        self,
        configs: Sequence[BackendConfig],
        adopt: Callable[[], None],
        meet: Callable[[Sequence[HttpBackend]], Awaitable[None]],
    ) -> None:
        """From now on these. The new ones are open when `meet` is called with all, and nothing has changed
        until it returns; `adopt` is called when `pairs` has them, before any other is closed.

        One that is still meant stays as it is; of others the answers that are under way are finished first.
        """
        before = {_meant(config): backend for backend, config in self.pairs}
        pairs: list[Pair] = []
        for config in configs:
            backend = before.pop(_meant(config), None)
            if backend is None:
                backend = self._built(config)
                self._coming.append(backend)
                await backend.open()
            pairs.append((backend, config))
        await meet([backend for backend, _ in pairs])
        self._coming.clear()
        self.pairs = tuple(pairs)
        adopt()
        for gone in before.values():
            task = asyncio.create_task(_retire(gone))
            self._retiring[task] = gone
            task.add_done_callback(self._retiring.pop)


def _meant(config: BackendConfig) -> BackendConfig:
    """The same for all settings of one server: how much it is sent is no matter of its connections."""
    return evolve(config, slots=None, weight=1, is_draining=False)


async def _retire(backend: HttpBackend) -> None:
    await backend.idle()
    await backend.close()
