"""Gateways that count alone keep others off their database."""

import pytest

from gateway.storage.refusals import DatabaseUnusable
from gateway.storage.serving import serving


def test_one_that_counts_alone_is_the_only_one(database_url: str):
    with serving(database_url, alone=True):
        for alone in (True, False):
            with pytest.raises(DatabaseUnusable, match="REDIS_URL"), serving(database_url, alone=alone):
                pass

    with serving(database_url, alone=True):
        pass  # it has gone


def test_those_that_count_together_are_any_number(database_url: str):
    with (
        serving(database_url, alone=False),
        serving(database_url, alone=False),
        pytest.raises(DatabaseUnusable),
        serving(database_url, alone=True),
    ):
        pass
