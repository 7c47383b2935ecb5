"""Why a request is refused. A value, not an exception: refusing is ordinary work."""

from dataclasses import dataclass

__all__ = ["Refusal"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A denial.

    ============================  ==================================================================================
    code                          meaning
    ============================  ==================================================================================
    ``token_too_large``           longer than the limit; it was not read
    ``malformed_token``           not base64url, not a Biscuit, or without what every token must say
    ``too_many_blocks``           narrowed more often than the limit allows; it was not verified
    ``unknown_key``               it names no key, or one that is not among the trust roots
    ``bad_signature``             it was changed, or somebody else signed it
    ``wrong_audience``            it is for another namespace
    ``token_expired``             the time is at or after its end
    ``token_not_yet_valid``       the time is before its start
    ``not_now``                   it is limited to other times of the day, days or calendars
    ``insufficient_capabilities`` it grants no such operation on that resource
    ``wrong_intent_type``         it is not for that type of intent
    ``wrong_topic``               it is not for that topic
    ``bad_resource``              the resource is not a concrete path
    ``check_failed``              a condition of a token outside the closed profile does not hold
    ``wrong_caller``              the token says another subject, tenant, session or attribute than is required
    ``authentication_too_old``    the subject proved who they are too long ago, or the token does not say when
    ``denied_by_rule``            a rule of the topology's own says no
    ``limits_reached``            deciding it might take, or took, more than a decision may cost
    ``undecidable``               an error happened while deciding; that is a denial
    ============================  ==================================================================================
    """

    code: str
    """Stable and machine-readable, one of the above."""
    reason: str
    """For people; never holds the token."""
