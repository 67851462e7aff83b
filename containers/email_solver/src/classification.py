"""What a mail is about, and whether it may be answered; rules that read as a list."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from containers.email_message import Letter

Language = Literal["de", "en"]
Arguments = dict[str, Any]

ORDER = re.compile(r"\bBA-\d{5}\b", re.I)
INVOICE = re.compile(r"\bR-\d{4}-\d{4}\b", re.I)
GERMAN = re.compile(
    r"\b(ich|und|wir|der|die|das|ist|nicht|bitte|mein\w*|ihr\w*|hallo|grüße|gruß|danke|können|meine|wo|wie|bestellung)\b",
    re.I,
)
ENGLISH = re.compile(
    r"\b(i|and|we|the|is|not|please|my|your|hello|hi|regards|thanks|can|could|where|how|order|have)\b", re.I
)


# Who is not answered. The first that fits is the reason.

DAEMONS = re.compile(r"^(mailer-daemon|postmaster|bounce[\w.+-]*)@", re.I)
NO_REPLY = re.compile(r"^(no-?reply|do-?not-?reply)@", re.I)


def _is_bounce(letter: Letter) -> bool:
    return (
        letter.headers.get("return-path") == "<>"
        or letter.headers.get("content-type", "").lower().startswith("multipart/report")
        or DAEMONS.match(letter.sender) is not None
    )


def _is_automatic(letter: Letter) -> bool:
    """RFC 3834, section 2, and what older programs say instead."""
    return (
        letter.headers.get("auto-submitted", "no").lower() != "no"
        or letter.headers.get("precedence", "").lower() in ("auto_reply", "bulk", "junk")
        or "x-autoreply" in letter.headers
        or re.match(r"(out of office|automatic reply|abwesenheit|automatische antwort)", letter.subject, re.I)
        is not None
    )


def _is_newsletter(letter: Letter) -> bool:
    return bool({"list-id", "list-unsubscribe"} & letter.headers.keys()) or NO_REPLY.match(letter.sender) is not None


def _is_forged(letter: Letter) -> bool:
    """The server that took it in found that it is not from whom it says: no order of his may be told about."""
    return re.search(r"\bdmarc=fail\b", letter.headers.get("authentication-results", "")) is not None


UNANSWERED: dict[str, Callable[[Letter], bool]] = {
    "bounce": _is_bounce,
    "auto_reply": _is_automatic,
    "newsletter": _is_newsletter,
    "forged": _is_forged,
    "no_sender": lambda letter: not letter.sender,
}


# What is asked for. More than one may be.

TOPICS: dict[str, re.Pattern[str]] = {
    "password_reset": re.compile(r"passwor[dt]|log ?in\b|sign in|einloggen|anmelden|locked out", re.I),
    "return_instructions": re.compile(r"\breturn\b|refund|zurückschicken|zurückgeben|rücksend|umtausch|retoure", re.I),
    "shipping_info": re.compile(
        r"ship to|shipping|versandkosten|versand nach|liefern sie|do you deliver|lieferzeit", re.I
    ),
}


class Classification(NamedTuple):
    category: str
    language: Language
    calls: list[tuple[str, Arguments]]  # of the support desk's tools; none: it is not to be answered


def classify(letter: Letter, own_address: str) -> Classification:
    language = _language(letter)
    if letter.sender.lower() == own_address.lower():
        return Classification("own", language, [])
    for category, applies in UNANSWERED.items():
        if applies(letter):
            return Classification(category, language, [])
    calls = _calls(letter, language)
    return Classification("+".join(dict.fromkeys(name for name, _ in calls)), language, calls)


def _calls(letter: Letter, language: Language) -> list[tuple[str, Arguments]]:
    said = letter.text if letter.is_reply else f"{letter.subject}\n{letter.text}"
    who = {"customer": letter.sender, "language": language}
    orders = dict.fromkeys(number.upper() for number in ORDER.findall(said))
    invoices = dict.fromkeys(number.upper() for number in INVOICE.findall(said))
    calls: list[tuple[str, Arguments]] = [
        *(("order_status", {"order_number": number, **who}) for number in orders),
        *(("invoice_lookup", {"invoice_number": number, **who}) for number in invoices),
    ]
    for topic, pattern in TOPICS.items():
        if pattern.search(said):
            calls.append((topic, {"language": language, **({"text": said} if topic == "shipping_info" else {})}))
    if not calls and not said.strip():
        calls.append(("ask_back", {"language": language}))
    if not calls:
        calls.append(("open_ticket", {"reference": letter.identity, "subject": letter.subject, **who}))
    return calls


def _language(letter: Letter) -> Language:
    said = f"{letter.subject} {letter.text}"
    return "en" if len(ENGLISH.findall(said)) > len(GERMAN.findall(said)) else "de"
