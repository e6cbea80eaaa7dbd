"""Who is next: deficit round robin over tenants by weight, then over the keys of each; a key's own in order.

Deficit round robin (Shreedhar and Varghese, 1996): whose turn comes is given as much as its weight, and may
spend what it has saved; who has nothing waiting saves nothing. The cost of a request is how many requests it
is to the backend. So while several tenants wait, each is served by its weight, whatever the others send, and
whoever is alone has it all.

A ticket may stand in the queues of several backends. It has its place in one of them; in the others it is a
guest: served as all others are, when its turn comes, and not counted among those who wait there.

A machine without a clock, and a queue of values: nothing waits in here.
"""

from collections import Counter, deque
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
    """The tickets of one key, in the order in which they came to the gateway."""

    tickets: deque[Ticket] = Factory(deque)
    weight: int = 1
    deficit: int = 0

    def add(self, ticket: Ticket) -> None:
        behind = 0
        for other in reversed(self.tickets):
            if other.arrived <= ticket.arrived:
                break
            behind += 1
        self.tickets.insert(len(self.tickets) - behind, ticket)

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
    """The tickets of one tenant, by key. `places`: how many of each key have one here; guests have none."""

    weight: int
    deficit: int = 0
    placed: int = 0
    places: Counter[str] = Factory(Counter)
    _keys: _Round = Factory(_Round)
    _size: int = 0

    def peek(self, may: May) -> Ticket | None:
        found = self._keys.peek(may)
        return None if found is None else found[1]

    def add(self, ticket: Ticket) -> None:
        line = self._keys.members.get(ticket.key)
        if not isinstance(line, _Line):
            line = _Line()
            self._keys.add(ticket.key, line)
        line.add(ticket)
        self._size += 1

    def serve(self, ticket: Ticket) -> None:
        self._keys.serve(ticket.key, ticket)
        self._size -= 1

    def drop(self, ticket: Ticket) -> None:
        self._keys.drop(ticket.key, ticket)
        self._size -= 1

    def take_place(self, key: str) -> None:
        self.placed += 1
        self.places[key] += 1

    def leave_place(self, key: str) -> None:
        self.placed -= 1
        self.places[key] -= 1
        if not self.places[key]:
            del self.places[key]

    def load(self) -> float:
        """How much it has waiting, for its weight."""
        return self.placed / self.weight

    def __len__(self) -> int:
        return self._size


class FairQueue:
    """Tickets by who is next. `may` says which models may be asked now; others keep their place."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._round = _Round()
        self._tickets: dict[int, Ticket] = {}
        self._guests: set[int] = set()

    def __len__(self) -> int:
        return len(self._tickets)

    def __iter__(self) -> Iterator[Ticket]:
        """In the order in which they came here."""
        return iter(self._tickets.values())

    @property
    def placed(self) -> int:
        """How many have their place here."""
        return len(self._tickets) - len(self._guests)

    def add(self, ticket: Ticket, *, is_guest: bool = False) -> None:
        tenant = self._tenants.get(ticket.tenant)
        if tenant is None:
            tenant = self._tenants[ticket.tenant] = _Tenant(ticket.weight)
            self._round.add(ticket.tenant, tenant)
        tenant.weight = ticket.weight  # as of the last that is known of it
        tenant.add(ticket)
        self._tickets[id(ticket)] = ticket
        if is_guest:
            self._guests.add(id(ticket))
        else:
            tenant.take_place(ticket.key)

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
        """Who leaves for this one where there is no room for both: of the tenant that has most waiting for
        its weight, and there of the key that has most, the newest; of its own tenant where no other has more.

        None where this one's tenant, or its key, would then have as much.
        """
        others = (tenant for name, tenant in self._tenants.items() if name != ticket.tenant)
        most = max(others, key=_Tenant.load, default=None)
        if most is not None and (self.waiting(ticket.tenant) + 1) / ticket.weight < most.load():
            return self._newest_of_most(most)
        own = self._tenants.get(ticket.tenant)
        if own is None or own.places[ticket.key] + 1 >= max(own.places.values(), default=0):
            return None
        return self._newest_of_most(own)

    def _newest_of_most(self, tenant: _Tenant) -> Ticket:
        most = max(tenant.places.values())
        return next(
            one
            for one in reversed(self._tickets.values())
            if self._tenants[one.tenant] is tenant
            and tenant.places[one.key] == most
            and id(one) not in self._guests
        )

    def newest_beside(self, ticket: Ticket, may: May) -> Ticket | None:
        """Of those that have their place here, who came last: of its own tenant, or of one that has more
        waiting for its weight than this one's would have with it.
        """
        would_be = (self.waiting(ticket.tenant) + 1) / ticket.weight
        theirs = {ticket.tenant, *(name for name, one in self._tenants.items() if one.load() > would_be)}
        placed = (one for one in reversed(self._tickets.values()) if id(one) not in self._guests)
        return next((one for one in placed if one.tenant in theirs and may(one.model)), None)

    def ahead_of(self, tenant: str, weight: int, own: int | None = None) -> int:
        """About how many go before one more ticket of this tenant, or before its ticket behind `own` of its
        own.

        By shares: of each other tenant as many as it may send while this one sends those.
        """
        if own is None:
            own = self.waiting(tenant)
        turns = own + 1
        others = (
            min(other.placed, -(-turns * other.weight // weight))
            for name, other in self._tenants.items()
            if name != tenant
        )
        return own + sum(others)

    def position(self, ticket: Ticket) -> int:
        """About where a ticket stands; 1 is next."""
        own, is_behind = 0, False
        for other in self._tickets.values():
            is_behind |= other is ticket
            if other.tenant == ticket.tenant and id(other) not in self._guests:
                own += other.arrived < ticket.arrived or (other.arrived == ticket.arrived and not is_behind)
        return self.ahead_of(ticket.tenant, ticket.weight, own) + 1

    def waiting(self, tenant: str) -> int:
        """How many of this tenant have their place here."""
        found = self._tenants.get(tenant)
        return 0 if found is None else found.placed

    def _forget(self, ticket: Ticket) -> None:
        del self._tickets[id(ticket)]
        tenant = self._tenants[ticket.tenant]
        if id(ticket) in self._guests:
            self._guests.remove(id(ticket))
        else:
            tenant.leave_place(ticket.key)
        if not len(tenant):
            del self._tenants[ticket.tenant]
