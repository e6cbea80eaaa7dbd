"""Target: what is asked, of which model, and who serves it. After Intake, before anything is taken for it."""

from attrs import evolve
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.errors import ModelNotFound
from gateway.formats.chat import Call, ChatCall
from gateway.formats.profiles import Profile, with_profile
from gateway.formats.translation import READERS
from gateway.middleware.context import caller_of, exchange_of
from gateway.middleware.intake import worked_on
from gateway.middleware.offering import Offering
from gateway.model import Exchange, ModelCard, Principal
from gateway.rules.access import least
from gateway.rules.model_names import canonical
from gateway.rules.options import OptionBounds


class Target:
    """Read the caller's call, bring it within the operator's bounds, and find a backend that has the model.

    A model that is not there, or not for this caller, is refused here: a refusal takes nothing of any limit
    or budget.
    """

    def __init__(self, app: ASGIApp, *, offering: Offering, bounds: OptionBounds) -> None:
        self.app = app
        self.offering = offering
        self.bounds = bounds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = exchange_of(scope)
        if exchange.operation in READERS:
            if exchange.asked is None:  # else Renewal asks again
                read = READERS[exchange.operation]
                exchange.asked = await worked_on(exchange.is_heavy, read, exchange.body)
                # All that counts is in the call now; what was parsed may be twenty times the body's size.
                exchange.body = {}
            await self._aim(exchange, exchange.asked)
        await self.app(scope, receive, send)

    async def _aim(self, exchange: Exchange, call: Call) -> None:
        caller = caller_of(exchange)
        exchange.stream = call.stream
        exchange.model = canonical(call.model) or call.model
        found = await self.offering.find(caller, call.model)
        if found is None:
            raise ModelNotFound(call.model)
        exchange.target, exchange.profile = (found.backend, found.card), found.profile
        exchange.timeouts = None if found.profile is None else found.profile.timeouts
        exchange.call = _able(self._granted(call, caller, found.profile), found.card)
        exchange.output_cap = least(
            caller.tenant_models.max_output_tokens,
            caller.key_models.max_output_tokens,
            None if found.profile is None else found.profile.max_output_tokens,
        )

    def _granted(self, call: Call, caller: Principal, profile: Profile | None) -> Call:
        """What is asked within the bounds of callers, then what the profile says of it."""
        asks_nothing = call.keep_alive is None and call.sampling.num_ctx is None
        if profile is None and asks_nothing and self.bounds.default_keep_alive_s is None:
            return call
        bounds = self.bounds.for_caller(caller)
        if profile is None:
            return _bounded(call, bounds)
        cap = least(caller.tenant_models.max_num_ctx, caller.key_models.max_num_ctx)
        bounds = bounds.capped(profile.max_num_ctx)
        if profile.keep_alive_s is not None:
            bounds = evolve(bounds, default_keep_alive_s=profile.keep_alive_s)
        return with_profile(_bounded(call, bounds), profile, cap)


def _able(call: Call, card: ModelCard) -> Call:
    """The call without the thinking that it would like, where the model is known to have none."""
    if not isinstance(call, ChatCall) or not (call.think and call.think_if_able):
        return call
    if card.capabilities is None or "thinking" in card.capabilities:
        return call
    return evolve(call, think=None, dropped=(*call.dropped, "thinking"))


def _bounded(call: Call, bounds: OptionBounds) -> Call:
    """The call within the operator's bounds; what was not granted as asked is named with the dropped."""
    keep_alive, num_ctx = bounds.keep_alive(call.keep_alive), bounds.num_ctx(call.sampling.num_ctx)
    changed = {"keep_alive": call.keep_alive != keep_alive, "num_ctx": call.sampling.num_ctx != num_ctx}
    default = bounds.default_keep_alive_s
    if not any(changed.values()) and (default is None or keep_alive is not None):
        return call
    return evolve(
        call,
        keep_alive=default if keep_alive is None else keep_alive,
        sampling=evolve(call.sampling, num_ctx=num_ctx),
        dropped=(*call.dropped, *(name for name, is_changed in changed.items() if is_changed)),
    )
