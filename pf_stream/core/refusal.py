"""Why a record was not handled: the codes in ``pf-error-code`` and in error replies."""

from typing import Final

__all__ = ["CODES"]

CODES: Final[dict[str, str]] = {
    # the envelope
    "null_value": "the record has no value; an intent is a JSON document",
    "null_key": "the record has no key; it must be the intent's key field",
    "payload_too_large": "the value is larger than the worker accepts",
    "too_many_headers": "the record has more headers than the worker accepts",
    "duplicate_header": "a header that decides something appears more than once",
    "malformed_envelope": "a CloudEvents attribute is missing or not as the Kafka binding demands",
    "unknown_type": "no reactor of this topology handles this type on this topic",
    "unsupported_version": "the type is known, but not in this version",
    # the payload
    "malformed_payload": "the value is not the JSON that the intent type declares",
    "key_mismatch": "the record's key is not the key field of its payload",
    "wrong_partition": "a forwarded record is still not in the partition of its key",
    "bad_reply_topic": "pf-reply-to names a topic that the topology's replies do not allow",
    # time
    "deadline_passed": "pf-deadline lies before the processing time",
    "not_before": "pf-not-before lies further ahead than a timer may wait",
    "outside_hours": "it may be handled at certain times alone, and this is none of them",
    "in_maintenance": "it may not be handled in a maintenance window",
    "too_early": "it may not be handled before a certain time",
    "too_late": "it may not be handled after a certain time",
    # who may do what
    "missing_context": "the intent requires a context and the record has none",
    "token_too_large": "the token is larger than 8 KiB",
    "too_many_blocks": "the token has more than 8 blocks",
    "malformed_token": "the context is not a Biscuit token in base64url",
    "unknown_key": "the token was signed by a key that is not among the trust roots",
    "bad_signature": "the token's signature does not hold",
    "wrong_audience": "the token is meant for another namespace",
    "token_expired": "the token had expired when the record was appended",
    "token_not_yet_valid": "the token was not yet valid when the record was appended",
    "not_now": "the intent, the token or a right in it is limited to other times",
    "insufficient_capabilities": "the context does not grant what the intent requires",
    "wrong_intent_type": "the token is limited to other intent types",
    "wrong_topic": "the token is limited to other topics",
    "wrong_caller": "the token says another subject, tenant, session or attribute than is required",
    "authentication_too_old": "the subject proved who they are too long ago, or the token does not say when",
    "denied_by_rule": "a rule of the topology's own says no",
    "check_failed": "a check of the token does not hold",
    "limits_reached": "deciding took, or may take, longer than the limits allow",
    "undecidable": "an error while deciding, which is a denial",
    "bad_resource": "a field that fills a segment of the resource has a value that no segment may have",
    # within a topology
    "untrusted_record": "a record on an internal topic that the engine did not write",
    "too_many_hops": "the intent has been emitted onward too often",
    # the handler
    "handler_failed": "the handler raised; nothing of the intent remains",
    "poison": "its handler ended the worker again and again",
    "bad_effect": "the handler returned something that is no effect, or an effect that cannot be made",
    "bad_state": "the handler left the state with a value of a wrong type",
    "sink_failed": "the consumer of a sink raised at it again and again",
    "unit_too_large": "what this one intent changes and emits does not fit into one commit",
}
