"""Sealing: what is sealed can be opened under the same secret, for the same request, and not otherwise."""

import pytest

from gateway.state.sealing import Sealer, Unsealable

SECRET = b"0123456789abcdef" * 2


def test_what_is_sealed_can_be_opened_from_what_is_kept():
    key = Sealer(SECRET).new_key("k1")
    sealed = key.seal("r1", b"a secret")

    kept = Sealer(SECRET).opened(key.id, "k1", key.wrapped)

    assert kept.unseal("r1", sealed) == b"a secret"
    assert b"secret" not in sealed


def test_the_same_text_never_looks_the_same():
    """Nonces and keys are random."""
    sealer = Sealer(SECRET)
    key = sealer.new_key("k1")

    assert key.seal("r1", b"text") != key.seal("r1", b"text")
    assert key.wrapped != sealer.new_key("k1").wrapped


def test_another_secret_opens_nothing():
    key = Sealer(SECRET).new_key("k1")

    with pytest.raises(Unsealable):
        Sealer(b"another secret").opened(key.id, "k1", key.wrapped)


def test_a_row_cannot_pass_for_another_requests():
    key = Sealer(SECRET).new_key("k1")

    with pytest.raises(Unsealable):
        key.unseal("r2", key.seal("r1", b"text"))


@pytest.mark.parametrize(("key_id", "account"), [("", "k2"), ("0" * 32, "k1")], ids=["account", "id"])
def test_a_data_key_cannot_pass_for_another_accounts(key_id: str, account: str):
    key = Sealer(SECRET).new_key("k1")

    with pytest.raises(Unsealable):
        Sealer(SECRET).opened(key_id or key.id, account, key.wrapped)


@pytest.mark.parametrize(
    "spoil",
    [lambda text: text[:-1] + bytes([text[-1] ^ 1]), lambda _: b"", lambda _: b"\x01short"],
    ids=["flipped", "empty", "short"],
)
def test_what_was_altered_is_not_opened(spoil):
    key = Sealer(SECRET).new_key("k1")

    with pytest.raises(Unsealable):
        key.unseal("r1", spoil(key.seal("r1", b"a text that is long enough")))


def test_neither_key_nor_text_is_in_a_representation():
    """Nothing that prints a data key, as a traceback or a log might, tells it."""
    key = Sealer(SECRET).new_key("k1")

    assert key._key.hex() not in repr(key)
    assert repr(key._key) not in repr(key)
