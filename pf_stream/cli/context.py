"""``pf context``: make, narrow, read and check the tokens that say who may do what."""

import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pf_stream.cli._errors import EXIT_REFUSED, exit_on_error
from pf_stream.cli._options import NamespaceOption, TopologyOption, instant_ms, load, read_context, read_file, utc
from pf_stream.cli._output import Output, OutputOption, note, show
from pf_stream.clock import WallClock
from pf_stream.model.context import LATEST_MS

if TYPE_CHECKING:
    from pf_stream.security import TokenInfo

app = typer.Typer()

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_duration = re.compile(r"(?:\d+[smhd])+").fullmatch

ContextOption = Annotated[
    str,
    typer.Option(
        "--context", envvar="PF_CONTEXT", metavar="FILE", help="File with the token; - is the standard input."
    ),
]
TrustOption = Annotated[
    list[Path],
    typer.Option("--trust", envvar="PF_TRUST_ROOTS", metavar="FILE", help="Public keys to believe; may be repeated."),
]
GrantOption = Annotated[
    list[str] | None,
    typer.Option("--grant", metavar="OP:SCOPE", help="As FlightCap.report:/UA/**; may be repeated."),
]
MintGrantOption = Annotated[
    list[str] | None,
    typer.Option(
        "--grant",
        metavar="OP:SCOPE",
        help="As FlightCap.report:/UA/**, or limited in time with 'during' and a TEXT; may be repeated.",
    ),
]
DuringOption = Annotated[
    list[str] | None,
    typer.Option(
        "--during",
        metavar="TEXT",
        help="Only at these times, as 'mon-fri 09:00-17:00 Europe/Berlin'; any, if repeated.",
    ),
]
TypeOption = Annotated[
    list[str] | None, typer.Option("--type", metavar="TYPE", help="Only for this type of intent; may be repeated.")
]
TopicOption = Annotated[
    list[str] | None, typer.Option("--topic", metavar="TOPIC", help="Only for this topic; may be repeated.")
]
OutOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write the token there, readable by you alone, instead of printing it."),
]


def _seconds(lifetime: str) -> int:
    if _duration(lifetime) is None:
        raise typer.BadParameter(
            f"{lifetime!r} is not a duration; write it as 90s, 15m, 12h or 1d12h", param_hint="--lifetime"
        )
    return sum(int(part[:-1]) * _UNITS_S[part[-1]] for part in re.findall(r"\d+[smhd]", lifetime))


def _instant(text: str | None, option: str) -> int | None:
    if text is None:
        return None
    from pf_stream.model.context import parse_time_ms

    time_ms = parse_time_ms(text.encode(errors="replace"))
    if time_ms is None:
        raise typer.BadParameter(f"{text!r} is no time such as 2026-01-01T00:00:00Z, with its zone", param_hint=option)
    return time_ms


def _attributes(pairs: list[str] | None) -> dict[str, str]:
    attributes: dict[str, str] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or key in attributes:
            fault = "is given twice" if equals else "has no '='; write it as KEY=VALUE"
            raise typer.BadParameter(f"{key!r} {fault}", param_hint="--attribute")
        attributes[key] = value
    return attributes


@app.command(
    epilog="Examples:\n\npf context mint --key issuer.key --subject alice --audience flights --grant 'FlightCap.report:/UA/**'\n\n"
    "pf context mint --key issuer.key --subject job-7 --audience flights --grant 'FlightCap.admin:/**' --lifetime 1h --out job-7.ctx"
    "\n\n"
    "pf context mint --key issuer.key --subject bob --audience flights "
    "--grant 'FlightCap.report:/** during mon-fri 09:00-17:00 Europe/London' --attribute clearance=secret"
)
def mint(
    key: Annotated[Path, typer.Option(envvar="PF_SIGNING_KEY", metavar="FILE", help="The signing key.")],
    subject: Annotated[str, typer.Option(help="Who asks.")],
    audience: Annotated[str, typer.Option(metavar="NAMESPACE", help="The namespace that the token is for.")],
    grant: MintGrantOption = None,
    tenant: Annotated[str | None, typer.Option(help="On whose behalf.")] = None,
    type_: TypeOption = None,
    topic: TopicOption = None,
    lifetime: Annotated[str, typer.Option(metavar="DURATION", help="How long it is valid from now.")] = "15m",
    not_before: Annotated[
        str | None, typer.Option(metavar="RFC3339", help="Not valid before, as 2026-01-01T00:00:00Z.")
    ] = None,
    during: DuringOption = None,
    session: Annotated[str | None, typer.Option(help="The session in which it is made.")] = None,
    attribute: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="What is known of the subject; may be repeated.")
    ] = None,
    authenticated_at: Annotated[
        str | None, typer.Option(metavar="RFC3339", help="When the subject proved who it is.")
    ] = None,
    out: OutOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Make a token and print it."""
    with exit_on_error():
        from pf_stream import security
        from pf_stream.model.capability import parse_grant

        token = security.mint(
            security.SigningKey.load(key),
            subject=subject,
            audience=audience,
            tenant=tenant,
            capabilities=[parse_grant(text) for text in grant or ()],
            intent_types=type_ or None,
            topics=topic or None,
            now_ms=WallClock().now_ms(),
            lifetime_s=_seconds(lifetime),
            not_before_ms=_instant(not_before, "--not-before"),
            session=session,
            attributes=_attributes(attribute),
            authenticated_ms=_instant(authenticated_at, "--authenticated-at"),
            during=during or None,
        )
        if not grant:
            note("[yellow]warning[/yellow]: without --grant the token may do nothing that needs a capability")
        _hand_out(token, out, output)


@app.command(
    epilog="Examples:\n\npf context attenuate --trust issuer.key.pub --context alice.ctx --grant 'FlightCap.report:/UA/EWR'\n\n"
    "pf context attenuate --trust issuer.key.pub --type flights.departed --lifetime 1m < alice.ctx > narrow.ctx\n\n"
    "pf context attenuate --trust issuer.key.pub --during 'mon-fri 09:00-17:00 Europe/London' < alice.ctx > office.ctx"
)
def attenuate(
    trust: TrustOption,
    context: ContextOption = "-",
    grant: GrantOption = None,
    type_: TypeOption = None,
    topic: TopicOption = None,
    lifetime: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Valid for at most this long from now.")
    ] = None,
    during: DuringOption = None,
    out: OutOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Narrow a token and print the result. Nothing it says can be widened, here or elsewhere.

    Needs no private key and no network. The public key is needed because only a genuine token is narrowed.
    """
    with exit_on_error():
        from pf_stream import security
        from pf_stream.model.capability import parse_grant

        expires_ms = None
        if lifetime is not None:
            expires_ms = WallClock().now_ms() + _seconds(lifetime) * 1000
        token = security.attenuate(
            read_context(context),
            security.TrustRoots.load(trust),
            capabilities=[parse_grant(text) for text in grant] if grant else None,
            intent_types=type_ or None,
            topics=topic or None,
            expires_ms=expires_ms,
            during=during or None,
        )
        _hand_out(token, out, output)


@app.command(
    epilog="Examples:\n\npf context inspect --context alice.ctx\n\npf context inspect -o json < alice.ctx | jq .capabilities"
)
def inspect(context: ContextOption = "-", output: OutputOption = Output.table) -> None:
    """Show what a token says, without verifying any of it."""
    with exit_on_error():
        from pf_stream import security

        info = security.describe(read_context(context))
        show(_plain(info), output)
        note("nothing of this is verified; see: pf context verify")
        if WallClock().now_ms() >= info.expires_ms:
            note("[yellow]it has expired[/yellow]")


@app.command(
    epilog="Examples:\n\npf context verify --trust issuer.key.pub --audience flights --context alice.ctx\n\n"
    "pf context verify --trust issuer.key.pub --audience flights --context alice.ctx "
    "--grant FlightCap.report:/UA/EWR --type flights.departed --topic flights.intents"
)
def verify(
    trust: TrustOption,
    audience: Annotated[str, typer.Option(metavar="NAMESPACE", help="The namespace that would receive it.")],
    context: ContextOption = "-",
    grant: Annotated[
        str | None,
        typer.Option(
            metavar="OP:RESOURCE",
            help="Would it be granted this? What implies the operation is not known here; name what is held.",
        ),
    ] = None,
    type_: Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Type of the intent.")] = None,
    topic: Annotated[str | None, typer.Option(metavar="TOPIC", help="Topic of the intent.")] = None,
    output: OutputOption = Output.table,
) -> None:
    """Check a token now, as a worker would; with --grant, --type and --topic also a request. Exits with 4 if refused."""
    asked = (grant, type_, topic)
    if any(one is not None for one in asked) and None in asked:
        raise typer.BadParameter("--grant, --type and --topic go together: a request has all three")
    with exit_on_error():
        from pf_stream import security
        from pf_stream.model.capability import parse_grant

        now_ms = WallClock().now_ms()
        claims = security.Verifier(security.TrustRoots.load(trust), audience).verify(read_context(context).encode())
        refusal = claims if isinstance(claims, security.Refusal) else claims.valid_at(now_ms) or claims.untimely(now_ms)
        if refusal is None and not isinstance(claims, security.Refusal) and grant and type_ and topic:
            wanted = parse_grant(grant)
            if not wanted.scope.is_exact or wanted.during is not None:
                raise typer.BadParameter("a request is about one resource, without * and times", param_hint="--grant")
            refusal = claims.refusal(frozenset({wanted.operation}), str(wanted.scope), type_, topic, now_ms)
        if refusal is not None:
            show({"accepted": False, "code": refusal.code, "reason": refusal.reason}, output)
            raise typer.Exit(EXIT_REFUSED)
        assert not isinstance(claims, security.Refusal)
        show(
            {
                "accepted": True,
                "subject": claims.subject,
                "tenant": claims.tenant,
                "audience": claims.audience,
                "not_before": _time(claims.not_before_ms),
                "expires": _time(claims.expires_ms),
                "in_profile": claims.closed,
                "revocation_ids": list(claims.revocation_ids),
            },
            output,
        )


@app.command(
    epilog="Examples:\n\npf context explain -t topologies/flights/topology.yaml --trust issuer.key.pub --context UA.ctx "
    "--intent flight.json\n\n"
    'echo \'{"type": "flights.departed", "data": {...}}\' | pf context explain -t flights:flights --trust issuer.key.pub '
    "--context UA.ctx --intent - --at 2026-01-31T12:00:00Z -o json"
)
def explain(
    topology: TopologyOption,
    trust: TrustOption,
    intent: Annotated[
        str,
        typer.Option(
            metavar="FILE", help='JSON with "type" and "data", such as a CloudEvent; - is the standard input.'
        ),
    ],
    context: ContextOption = "-",
    at: Annotated[
        str, typer.Option(metavar="TIME|AGO", help="Decide for this time: 2026-01-31T12:00:00Z, or 2h ago.")
    ] = "0s",
    namespace: NamespaceOption = None,
    output: OutputOption = Output.table,
) -> None:
    """Show what a worker of the topology would decide about an intent with this token, and why. Exits with 4 if refused."""
    if context == intent == "-":
        raise typer.BadParameter("--context and --intent cannot both be the standard input")
    at_ms = instant_ms(at, "--at", WallClock().now_ms())
    with exit_on_error():
        from pf_stream import security
        from pf_stream.components.explanation import explain as decide
        from pf_stream.components.messaging import read_event

        loaded = load(topology, namespace)
        verifier = security.Verifier(security.TrustRoots.load(trust), loaded.namespace, calendars=loaded.calendars)
        verdict = decide(loaded, verifier, read_context(context).encode(), read_event(loaded, read_file(intent)), at_ms)
        claims = verdict.claims
        answer = {
            "accepted": verdict.accepted,
            "code": verdict.code,
            "reason": verdict.reason,
            "at": utc(at_ms),
            "subject": None if claims is None else claims.subject,
            "tenant": None if claims is None else claims.tenant,
            "not_before": None if claims is None else _time(claims.not_before_ms),
            "expires": None if claims is None else _time(claims.expires_ms),
            "may": None if claims is None else list(map(str, claims.caller.capabilities)),
        }
        findings = [asdict(finding) for finding in verdict.findings]
        if output is Output.table:
            show(answer, output)
            for finding in findings:
                note_line = "holds" if finding["holds"] else "missing"
                show(
                    {
                        f"{note_line}": finding["requirement"],
                        "": "; ".join(line.strip(" .") for line in finding["because"].splitlines()),
                    },
                    output,
                )
        else:
            show({**answer, "requirements": findings}, output)
        if not verdict.accepted:
            raise typer.Exit(EXIT_REFUSED)


def _hand_out(token: str, out: Path | None, output: Output) -> None:
    from pf_stream import security

    if out is not None:
        security.write_private(out, token + "\n", overwrite=True)
        note("written to {}", out)
        return
    if output is Output.table:
        typer.echo(token)
        return
    show({"token": token, **_plain(security.describe(token))}, output)


def _plain(info: "TokenInfo") -> dict[str, Any]:
    return {
        "kid": info.kid,
        "subject": info.subject,
        "tenant": info.tenant,
        "audience": info.audience,
        "session": info.session,
        "attributes": dict(info.attributes),
        "issued": None if info.issued_ms is None else _time(info.issued_ms),
        "authenticated": None if info.authenticated_ms is None else _time(info.authenticated_ms),
        "capabilities": list(map(str, info.capabilities)),
        "narrowed_to": [list(map(str, alternatives)) for alternatives in info.narrowed_to],
        "during": [list(map(str, alternatives)) for alternatives in info.during],
        "intent_types": None if info.intent_types is None else sorted(info.intent_types),
        "topics": None if info.topics is None else sorted(info.topics),
        "not_before": _time(info.not_before_ms),
        "expires": _time(info.expires_ms),
        "blocks": info.blocks,
        "sealed": info.sealed,
        "in_profile": info.in_profile,
        "revocation_ids": list(info.revocation_ids),
    }


def _time(ms: int) -> str | None:
    """RFC 3339; None for no bound."""
    if not 0 < ms <= LATEST_MS:
        return None
    return datetime.fromtimestamp(ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
