"""Errors: the one place that turns an outcome into an answer, in the caller's dialect."""

from collections.abc import Awaitable, Callable

from loguru import logger
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import ClientLeft, GatewayError, InternalError
from gateway.formats.dialects import render
from gateway.middleware.context import answer, exchange_of, raising
from gateway.model import Exchange


class Errors:
    """Render what the layers below raise. After the first byte only the server can tell, by cutting.

    `chance` is a random number from 0 up to 1, for `GatewayError.headers`.
    """

    def __init__(self, app: ASGIApp, *, chance: Callable[[], float]) -> None:
        self.app = app
        self.chance = chance

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange = exchange_of(scope)
        try:
            below = self.app(scope, receive, send)
        except GatewayError as error:
            # Refused before there was anything to wait for: so there is nothing to wait for here either.
            exchange.error = error
            return self._tell(exchange, error, send)
        except Exception as error:  # noqa: BLE001 - told below, as what is raised later
            below = raising(error)
        return self._watched(below, exchange, send)

    async def _watched(self, below: Awaitable[None], exchange: Exchange, send: Send) -> None:
        try:
            await below
        except ClientLeft:
            raise
        except GatewayError as error:
            exchange.error = error
        except Exception:  # a defect of ours: the caller gets no details, the log all of them
            logger.bind(request_id=exchange.request_id).exception("unhandled error")
            exchange.error = InternalError()
            if exchange.status is not None:
                raise
        if exchange.error is not None and exchange.status is None:
            await self._tell(exchange, exchange.error, send)

    def _tell(self, exchange: Exchange, error: GatewayError, send: Send) -> Awaitable[None]:
        body = render(error, exchange.surface, exchange.request_id)
        headers = [*error.headers(self.chance()), *exchange.headers]
        return answer(send, error.status, body, headers=headers)
