"""Tokens and keys: who may do what, signed by an issuer, narrowed by holders, verified and decided by workers.

``keys`` signs and trusts, ``token`` makes and narrows, ``verify`` decides, ``profile`` says what tokens are made of.
"""

from pf_stream.security.claims import Claims
from pf_stream.security.envelope import MAX_BLOCKS, MAX_TOKEN_BYTES
from pf_stream.security.keys import KeyFileError, SigningKey, TrustRoots, public_keys, write_private
from pf_stream.security.refusal import Refusal
from pf_stream.security.token import DEFAULT_LIFETIME_S, TokenError, TokenInfo, attenuate, describe, mint
from pf_stream.security.verify import Verifier

__all__ = [
    "DEFAULT_LIFETIME_S",
    "MAX_BLOCKS",
    "MAX_TOKEN_BYTES",
    "Claims",
    "KeyFileError",
    "Refusal",
    "SigningKey",
    "TokenError",
    "TokenInfo",
    "TrustRoots",
    "Verifier",
    "attenuate",
    "describe",
    "mint",
    "public_keys",
    "write_private",
]
