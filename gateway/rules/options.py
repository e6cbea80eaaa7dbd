"""The firewall of options: how far a caller may go with what concerns all who share the backend.

Which options are read at all is the formats' business; what is not read is never forwarded.
"""

from attrs import evolve, frozen

from gateway.model import Principal
from gateway.rules.access import least


@frozen
class OptionBounds:
    """The operator's bounds: seconds, tokens."""

    max_keep_alive_s: float
    max_num_ctx: int
    default_keep_alive_s: float | None = None
    """Where the caller says nothing that is granted; None: as the backend is set."""

    def for_caller(self, principal: Principal) -> "OptionBounds":
        """Those that hold for this caller: its tenant's and its key's caps lower the operator's own."""
        return self.capped(least(principal.tenant_models.max_num_ctx, principal.key_models.max_num_ctx))

    def capped(self, cap: int | None) -> "OptionBounds":
        """The same with a lower cap on the context, where there is one."""
        return self if cap is None or cap >= self.max_num_ctx else evolve(self, max_num_ctx=cap)

    def keep_alive(self, asked_s: float | None) -> float | None:
        """How long the model may stay loaded; None: as the operator set the backend.

        0 would unload it for everybody, a negative one pin it for ever: neither is one caller's to ask.
        """
        return None if asked_s is None or asked_s <= 0 else min(asked_s, self.max_keep_alive_s)

    def num_ctx(self, asked: int | None) -> int | None:
        """The context to load the model with; None: the backend's own. Its memory grows with it."""
        return None if asked is None else min(asked, self.max_num_ctx)
