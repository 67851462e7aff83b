"""The support desk as an MCP server on stdio: `python -m src.support_server`.

KNOWLEDGE   the file that it answers from; knowledge.toml, if not set
TICKETS     where tickets are written down, one JSON object a line; nowhere, if not set
"""

from __future__ import annotations

import hashlib
import json
import os
import tomllib
from datetime import date
from pathlib import Path
from typing import Any, Literal

from mcp.server import MCPServer

Language = Literal["de", "en"]
Answer = dict[str, Any]

KNOWLEDGE = Path(os.environ.get("KNOWLEDGE", Path(__file__).parent.parent / "knowledge.toml"))
TICKETS = os.environ.get("TICKETS")

knowledge: dict[str, Any] = tomllib.loads(KNOWLEDGE.read_text(encoding="utf-8"))
server = MCPServer("support", version="1.0", instructions="Looks things up for the customers of a shop.")


def say(text: str, language: Language, **members: Any) -> str:
    shown = {name: day_in(value, language) if isinstance(value, date) else value for name, value in members.items()}
    return str(knowledge["texts"][text][language]).format(**shown)


def day_in(day: date, language: Language) -> str:
    return f"{day.day}.{day.month}.{day.year}" if language == "de" else f"{day:%B} {day.day}, {day.year}"


def owned(kind: str, number: str, customer: str) -> dict[str, Any] | None:
    """What has this number, if it is that customer's: nobody learns of another's orders, or that there are any."""
    found: dict[str, Any] | None = knowledge[kind].get(number)
    return found if found and found["customer"].lower() == customer.lower() else None


def not_found(number: str, language: Language) -> Answer:
    return {"status": "not_found", "answer": say("not_found", language, number=number)}


@server.tool()
def order_status(order_number: str, customer: str, language: Language) -> Answer:
    """Where a customer's order (BA-NNNNN) is."""
    order = owned("orders", order_number, customer)
    if order is None:
        return not_found(order_number, language)
    answer = say(order["status"], language, order=order_number, detail=order["detail"])
    return {"status": order["status"], "answer": answer}


@server.tool()
def invoice_lookup(invoice_number: str, customer: str, language: Language) -> Answer:
    """What a customer's invoice (R-YYYY-NNNN) amounts to, and whether it is paid."""
    invoice = owned("invoices", invoice_number, customer)
    if invoice is None:
        return not_found(invoice_number, language)
    answer = say(f"invoice_{invoice['status']}", language, number=invoice_number, **invoice)
    return {"status": invoice["status"], "answer": answer}


@server.tool()
def password_reset(language: Language) -> Answer:
    """How customers set a new password. The same for everybody, so that it does not tell who has an account."""
    return {"status": "told", "answer": say("password_reset", language)}


@server.tool()
def return_instructions(language: Language) -> Answer:
    """How something is sent back."""
    return {"status": "told", "answer": say("returns", language)}


@server.tool()
def shipping_info(text: str, language: Language) -> Answer:
    """How long shipping takes to the country that a text names, and what it costs."""
    countries: list[dict[str, Any]] = list(knowledge["shipping"].values())
    named = [country for country in countries if any(word in text.lower() for word in country["words"])]
    if not named:
        served = ", ".join(country[language] for country in countries)
        return {"status": "unknown_country", "answer": say("shipping_unknown", language, countries=served)}
    answer = say("shipping", language, country=named[0][language], **named[0])
    return {"status": "told", "country": named[0]["en"], "answer": answer}


@server.tool()
def ask_back(language: Language) -> Answer:
    """What is said to a mail that says nothing."""
    return {"status": "told", "answer": say("unclear", language)}


@server.tool()
def open_ticket(reference: str, customer: str, subject: str, language: Language) -> Answer:
    """Hands a request to a person. The same reference gives the same ticket."""
    ticket = f"T-{hashlib.sha256(reference.encode()).hexdigest()[:8].upper()}"
    if TICKETS:
        write_down({"ticket": ticket, "customer": customer, "subject": subject}, Path(TICKETS))
    return {"status": "opened", "ticket": ticket, "answer": say("ticket", language, ticket=ticket)}


def write_down(ticket: dict[str, str], path: Path) -> None:
    """Once, however often it is asked for."""
    line = json.dumps(ticket, ensure_ascii=False) + "\n"
    known = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    if line not in known:
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


if __name__ == "__main__":
    server.run()
