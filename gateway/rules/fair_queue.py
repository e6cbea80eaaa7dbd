"""Who is next: deficit round robin over tenants by weight, then over the keys of each; a key's own in order.

Deficit round robin (Shreedhar and Varghese, 1996): whose turn comes is given as much as its weight, and may
spend what it has saved; who has nothing waiting saves nothing. The cost of a request is how many requests it
is to the backend. So while several tenants wait, each is served by its weight, whatever the others send, and
whoever is alone has it all.

A machine without a clock, and a queue of values: nothing waits in here.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

from attrs import Factory, define

# Whether a model may be asked now.
May = Callable[[str], bool]


@define(eq=False)
class Ticket:
    """One request in line. `arrived` is seconds on a monotonic clock."""

    tenant: str
    key: str
    model: str
    arrived: float
    weight: int = 1
    """The tenant's: of two that wait, one with twice the weight is served twice as much."""
    cost: int = 1
    patience_s: float | None = None
    """How long its caller wants to wait at most, where it says."""


class _Member(Protocol):
    """Who takes turns."""

    weight: int
    deficit: int

    def peek(self, may: May) -> Ticket | None:
        """Its next ticket; asked again, the same, until that is taken out or others come."""

    def serve(self, ticket: Ticket) -> None:
        """Take out what `peek` gave."""

    def drop(self, ticket: Ticket) -> None:
        """Take out a ticket that is not served."""

    def __len__(self) -> int: ...


@define(eq=False)
class _Line:
    """The tickets of one key, in the order in which they came."""

    tickets: deque[Ticket] = Factory(deque)
    weight: int = 1
    deficit: int = 0

    def peek(self, may: May) -> Ticket | None:
        return next((ticket for ticket in self.tickets if may(ticket.model)), None)

    def serve(self, ticket: Ticket) -> None:
        self.tickets.remove(ticket)

    drop = serve

    def __len__(self) -> int:
        return len(self.tickets)


@define(eq=False)
class _Round:
    """Members taking turns. `_is_new`: the first in the ring was not yet given its due of this turn."""

    members: dict[str, _Member] = Factory(dict)
    _ring: deque[str] = Factory(deque)
    _is_new: bool = True

    def add(self, name: str, member: _Member) -> None:
        self.members[name] = member
        self._ring.append(name)

    def peek(self, may: May) -> tuple[str, Ticket] | None:
        if all(member.peek(may) is None for member in self.members.values()):
            return None
        while True:
            name = self._ring[0]
            member = self.members[name]
            ticket = member.peek(may)
            if ticket is not None:
                if self._is_new:
                    self._is_new = False
                    member.deficit += member.weight
                if member.deficit >= ticket.cost:
                    return name, ticket
            self._ring.rotate(-1)
            self._is_new = True

    def serve(self, name: str, ticket: Ticket) -> None:
        """Take out what `peek` gave."""
        member = self.members[name]
        member.deficit -= ticket.cost
        member.serve(ticket)
        self._forget_if_empty(name)

    def drop(self, name: str, ticket: Ticket) -> None:
        """Take out a ticket that is not served."""
        self.members[name].drop(ticket)
        self._forget_if_empty(name)

    def _forget_if_empty(self, name: str) -> None:
        if len(self.members[name]):
            return
        if self._ring[0] == name:
            self._is_new = True
        self._ring.remove(name)
        del self.members[name]


@define(eq=False)
class _Tenant:
    """The tickets of one tenant, by key."""

    weight: int
    deficit: int = 0
    keys: _Round = Factory(_Round)
    size: int = 0

    def peek(self, may: May) -> Ticket | None:
        found = self.keys.peek(may)
        return None if found is None else found[1]

    def add(self, ticket: Ticket) -> None:
        line = self.keys.members.get(ticket.key)
        if not isinstance(line, _Line):
            line = _Line()
            self.keys.add(ticket.key, line)
        line.tickets.append(ticket)
        self.size += 1

    def serve(self, ticket: Ticket) -> None:
        self.keys.serve(ticket.key, ticket)
        self.size -= 1

    def drop(self, ticket: Ticket) -> None:
        self.keys.drop(ticket.key, ticket)
        self.size -= 1

    def load(self) -> float:
        """How much it has waiting, for its weight."""
        return self.size / self.weight

    def __len__(self) -> int:
        return self.size


class FairQueue:
    """Tickets by who is next. `may` says which models may be asked now; others keep their place."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._round = _Round()
        self._tickets: dict[int, Ticket] = {}

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        """In the order in which they came."""
        return iter(self._tickets.values())

    def add(self, ticket: Ticket) -> None:
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            tenant = self._tenants[ticket.tenant] = _Tenant(ticket.weight)
            self._round.add(ticket.tenant, tenant)
        tenant.weight = ticket.weight  # as of the last that is known of it
        tenant.add(ticket)
        self._tickets[id(ticket)] = ticket

    def peek(self, may: May) -> Ticket | None:
        """Who is next; None when of those that wait nobody may."""
        found = self._round.peek(may)
        return None if found is None else found[1]

    def pop(self, may: May) -> Ticket | None:
        """Take out who is next."""
        ticket = self.peek(may)
        if ticket is not None:
            self._round.serve(ticket.tenant, ticket)
            self._forget(ticket)
        return ticket

    def drop(self, ticket: Ticket) -> None:
        """Take out one that is not served: it left, or can't be served in time."""
        self._round.drop(ticket.tenant, ticket)
        self._forget(ticket)

    def gives_way(self, ticket: Ticket) -> Ticket | None:
        """Who leaves for this one where there is no room for both: the newest of the tenant that has most
        waiting for its weight. None where this one's tenant would then have as much.
        """
        others = (tenant for name, tenant in self._tenants.items() if name != ticket.tenant)
        most = max(others, key=_Tenant.load, default=None)
        if most is None or (self.waiting(ticket.tenant) + 1) / ticket.weight >= most.load():
            return None
        return next(one for one in reversed(self._tickets.values()) if self._tenants[one.tenant] is most)

    def ahead_of(self, tenant: str, weight: int, own: int | None = None) -> int:
        """About how many go before one more ticket of this tenant, or before its ticket behind `own` of its
        own.

        By shares: of each other tenant as many as it may send while this one sends those.
        """
        if own is None:
            own = self.waiting(tenant)
        turns = own + 1
        others = (
            min(len(other), -(-turns * other.weight // weight))
            for name, other in self._tenants.items()
            if name != tenant
        )
        return own + sum(others)

    def position(self, ticket: Ticket) -> int:
        """About where a ticket stands; 1 is next."""
        own = 0
        for other in self._tickets.values():
            if other is ticket:
                break
            own += other.tenant == ticket.tenant
        return self.ahead_of(ticket.tenant, ticket.weight, own) + 1

    def waiting(self, tenant: str) -> int:
        found = self._tenants.get(tenant)
        return 0 if found is None else len(found)

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[id(ticket)]
        if not len(self._tenants[ticket.tenant]):
            del self._tenants[ticket.tenant]
