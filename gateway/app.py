"""The app: the pipeline as one list around one endpoint. The order is the design.

Starlette has the lifespan, and says what a layer is; requests go past its router and its own layers, which
would find one route and catch what Errors has caught: four calls a request, three a message.
"""

from collections.abc import Awaitable
from random import random

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.middleware.admission import Admission
from gateway.middleware.audit import Audit
from gateway.middleware.auth import Auth
from gateway.middleware.budgets import Budgets
from gateway.middleware.counting import Counting
from gateway.middleware.errors import Errors
from gateway.middleware.eviction import Eviction
from gateway.middleware.intake import BodyLimits, Intake
from gateway.middleware.limits import Limits
from gateway.middleware.mutation_block import MutationBlock
from gateway.middleware.offering import Offering
from gateway.middleware.renewal import Renewal
from gateway.middleware.settler import LEASE_S
from gateway.middleware.target import Target
from gateway.middleware.transcription import Transcription
from gateway.proxy.endpoint import Endpoint
from gateway.resources import Resources
from gateway.rules.options import OptionBounds
from gateway.rules.plans import OutputBounds


class App:
    """Requests are the pipeline's, all else Starlette's: the lifespan, and a no to every WebSocket."""

    def __init__(self, starlette: ASGIApp, pipeline: ASGIApp) -> None:
        self._starlette = starlette
        self._pipeline = pipeline

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (self._pipeline if scope["type"] == "http" else self._starlette)(scope, receive, send)


def build(resources: Resources) -> App:
    """The ASGI app. Its lifespan opens and closes the resources."""
    offering = Offering(resources.catalogue, resources.router, resources.profiles)
    endpoint = Endpoint(
        offering=offering,
        clock=resources.clock,
        lifecycle=resources.lifecycle,
        readiness=resources,
        allowances=resources.allowances,
        refusals=resources.refusals,
        tokenizers=resources.tokenizers,
        router=resources.router,
    )
    app: ASGIApp = endpoint
    for layer, args, kwargs in reversed(pipeline(resources, offering)):
        app = layer(app, *args, **kwargs)
    return App(Starlette(lifespan=resources.lifespan), app)


def pipeline(resources: Resources, offering: Offering) -> list[Middleware]:
    """The layers, outermost first."""
    config = resources.config
    limits = BodyLimits(
        one_bytes=config.max_body_bytes,
        all_bytes=config.max_bodies_bytes,
        grace_s=config.body_grace_s,
        min_bytes_per_s=config.body_min_bytes_per_s,
        deadline_s=config.body_deadline_s,
    )
    return [
        # Sees everything below, refusals included; opens the Exchange; classifies the target once.
        Middleware(
            Audit,
            clock=resources.clock,
            new_id=resources.new_id,
            sinks=resources.sinks,
            trusted_proxies=config.trusted_proxies,
            allowed_hosts=config.allowed_hosts,
        ),
        # Inside Audit, so that the audited status is the one that the client saw.
        Middleware(Errors, chance=random),
        # For everyone, before anything is read or looked up.
        Middleware(MutationBlock),
        # Nothing that costs or reveals comes before knowing who asks.
        Middleware(Auth, authenticator=resources.keys),
        # The body is read for known callers only.
        Middleware(Intake, limits=limits, lifecycle=resources.lifecycle, sinks=resources.sinks),
        # Below the body, which is read once; above all that is decided by what is known of the caller.
        Middleware(Renewal, authenticator=resources.keys, allowances=resources.allowances),
        # What does not exist is refused before anything is taken for it.
        Middleware(
            Target,
            offering=offering,
            bounds=OptionBounds(config.max_keep_alive_s, config.max_num_ctx, config.default_keep_alive_s),
        ),
        # Pure planners: each adds what is to be taken.
        Middleware(Limits),
        Middleware(
            Budgets,
            clock=resources.clock,
            lore=resources.lore,
            outputs=OutputBounds(config.max_output_tokens, config.default_output_tokens),
            lease_s=LEASE_S,
        ),
        # Around all that may last: what is ended is settled below, and told above.
        Middleware(Eviction, running=resources.running),
        # One atomic call takes all or nothing; the settler ends it, whatever becomes of the request.
        Middleware(
            Admission,
            allowances=resources.allowances,
            settler=resources.settler,
            counting=Counting(resources.tokenizers, resources.lore, resources.clock),
            # No longer at the end of a request than at its beginning.
            settling_s=config.redis_timeout_s,
        ),
        # Below Admission: what was refused is not kept, however much of it comes.
        Middleware(Transcription, prompts=resources.prompt_log),
    ]
