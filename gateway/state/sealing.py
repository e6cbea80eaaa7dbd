"""How prompts are sealed: AES-256-GCM, by keys that are wrapped under GATEWAY_SECRET.

A data key is random, of one account and of a few minutes. It is wrapped by a key that HKDF-SHA256 makes of
the secret for this data key alone. Nonces are random (96 bits): no key seals more than a few minutes'
requests, and none wraps more than one. What is sealed is bound to its request, its account and its data key,
so that nothing can be passed off as another row's.

What AES and HKDF come from is imported with the first key: it takes 6 MB, and most gateways log no prompts.
"""

import os
from typing import Final

from attrs import field, frozen

_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
# Says how the rest is to be read; another way of sealing gets another one.
_VERSION: Final = b"\x01"
_WRAPPING: Final = b"neuronetz-gateway prompt log: wrapping key"
_DATA_KEY: Final = b"neuronetz-gateway prompt log: data key"
_PROMPT: Final = b"neuronetz-gateway prompt log: prompt"


class Unsealable(Exception):
    """Sealed by another secret, or changed since."""


@frozen
class DataKey:
    """A key that seals. `wrapped` is what may be kept of it."""

    id: str
    account_id: str
    wrapped: bytes = field(repr=False)
    _key: bytes = field(repr=False)

    def seal(self, request_id: str, text: bytes) -> bytes:
        return _seal(self._key, text, self._told(request_id))

    def unseal(self, request_id: str, sealed: bytes) -> bytes:
        """Raises Unsealable."""
        return _unseal(self._key, sealed, self._told(request_id))

    def _told(self, request_id: str) -> bytes:
        return _joined(_PROMPT, request_id, self.account_id, self.id)


class Sealer:
    """Makes data keys, and opens those that were kept, under one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def new_key(self, account_id: str) -> DataKey:
        key_id, key = os.urandom(16).hex(), os.urandom(_KEY_BYTES)
        wrapped = _seal(self._wrapping_key(key_id), key, _joined(_DATA_KEY, account_id, key_id))
        return DataKey(key_id, account_id, wrapped, key)

    def opened(self, key_id: str, account_id: str, wrapped: bytes) -> DataKey:
        """Raises Unsealable."""
        key = _unseal(self._wrapping_key(key_id), wrapped, _joined(_DATA_KEY, account_id, key_id))
        return DataKey(key_id, account_id, wrapped, key)

    def _wrapping_key(self, key_id: str) -> bytes:
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF

        # No salt: the secret is random, and the info tells the keys apart (RFC 5869, 3.1 and 3.2).
        info = _joined(_WRAPPING, key_id)
        return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=None, info=info).derive(self._secret)


def _seal(key: bytes, text: bytes, told: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = os.urandom(_NONCE_BYTES)
    return _VERSION + nonce + AESGCM(key).encrypt(nonce, text, told)


def _unseal(key: bytes, sealed: bytes, told: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not sealed.startswith(_VERSION):
        raise Unsealable
    nonce, text = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    try:
        return AESGCM(key).decrypt(nonce, text, told)
    except (InvalidTag, ValueError) as error:  # ValueError: too short to be anything
        raise Unsealable from error


def _joined(label: bytes, *ids: str) -> bytes:
    """No id has a zero byte, so no two lists of them look alike."""
    return b"\0".join((label, *(one.encode() for one in ids)))
