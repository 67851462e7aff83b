"""What the rules decide and write where there is no model: each takes the conversation and gives the next message.

Rules.assign      the governor's split of an enquiry into questions
Rules.specialist  look up what the part mentions, then say what was found
Rules.review      the governor's word on a draft
Rules.reply       the answer, made of the drafts
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from . import reading
from .business import SPECIALISTS, Business, Specialist
from .enquiry_context import Slip
from .phrasing import Teller
from .reading import Language, mentions

Members = dict[str, Any]
Conversation = Sequence[BaseMessage]

ABUSIVE = ["idiot", "abzocker", "betrüger", "saftladen", "verbrecher", "scammer", "thieves", "moron", "arsch", "fuck"]
COSTS = ["preis", "kost", "price", "cost", "how much", "wie viel"]
OWN_WORDS: dict[Specialist, list[str]] = {
    "booking": ["buch", "termin", "platz", "plätze", "reservier", "book", "availab", "slot", "reserv", "frei"],
    "weather_and_safety": [
        "mindestalter",
        "alt ",
        "gewicht",
        "schwer",
        "wiege",
        "wiegt",
        "weigh",
        "old enough",
        "limit",
    ],
    "vouchers_and_prices": ["gutschein", "voucher", *COSTS],
}
BOOKED = ["gebucht", "are booked", "have booked", "our booking"]
"""Who has a place does not ask for one."""
IN_GENERAL = {"booking": "which_day", "weather_and_safety": "limits", "vouchers_and_prices": "asked_back"}
"""What a specialist says who has found nothing to look up."""
CONSENT = {"de": "Zustimmung eines Elternteils", "en": "consent of a parent"}


def _call(name: str, **arguments: Any) -> Members:
    return {"name": name, "args": arguments, "id": f"call-{uuid4().hex[:12]}"}


def _slip(messages: Conversation) -> Slip:
    """The last that a person, or the governor, has said."""
    return Slip.parse(str(next(message for message in reversed(messages) if isinstance(message, HumanMessage)).content))


def _found(messages: Conversation) -> list[tuple[str, Members]]:
    """What the tools have given so far, with their names."""
    return [(str(it.name), json.loads(str(it.content))) for it in messages if isinstance(it, ToolMessage)]


class Rules:
    def __init__(self, business: Business) -> None:
        self._business = business
        self._teller = Teller(business)

    # The governor

    def assign(self, messages: Conversation) -> AIMessage:
        slip = _slip(messages)
        whole = f"{slip.subject}.\n\n{slip.text}"
        parts = {name: self._part(name, whole, slip) for name in SPECIALISTS}
        questions = [{"specialist": name, "text": part} for name, part in parts.items() if part]
        kind = "abusive" if mentions(whole, ABUSIVE) else "enquiry" if questions else "off_topic"
        return self._decide(
            "Assignment",
            kind=kind,
            language=reading.language(whole),
            questions=questions if kind == "enquiry" else [],
        )

    def _part(self, specialist: Specialist, whole: str, slip: Slip) -> str:
        """The sentences that concern the specialist; those with days, weights and vouchers belong to whom they tell."""
        return " ".join(it for it in reading.sentences(whole) if self._concerns(specialist, it, slip.received))

    def _concerns(self, specialist: Specialist, sentence: str, received: date) -> bool:
        own: dict[Specialist, list[Any]] = {
            "booking": reading.days(sentence, received),
            "weather_and_safety": [*reading.weights(sentence), *reading.ages(sentence)],
            "vouchers_and_prices": reading.vouchers(sentence),
        }
        words = [*OWN_WORDS[specialist], *self._rule_words(specialist)]
        if specialist == "vouchers_and_prices":
            words += self._business.photos.words
        return bool(own[specialist]) or mentions(sentence, words)

    def _rule_words(self, specialist: Specialist) -> list[str]:
        return [word for topic in self._business.topics_of(specialist) for word in self._business.rules[topic].words]

    def review(self, messages: Conversation) -> AIMessage:
        """The draft follows what the tools gave, in one text."""
        text = str(messages[-1].content)
        remark = ""
        if '"parent_must_consent": true' in text and not any(consent in text for consent in CONSENT.values()):
            remark = "Say that a parent has to consent."
        return self._decide("Review", accepted=not remark, remark=remark)

    def reply(self, messages: Conversation) -> AIMessage:
        given = json.loads(str(messages[-1].content))
        language: Language = "en" if given["language"] == "en" else "de"
        body = given["drafts"] or [self._teller.say(given["kind"], language)]
        thanks = [self._teller.say("thanks", language)] if given["drafts"] else []
        greeting = self._teller.say("greeting", language, name=f" {given['name']}" if given["name"] else "")
        return AIMessage("\n\n".join([greeting, *thanks, *body, self._teller.say("signature", language)]) + "\n")

    def _decide(self, name: str, **arguments: Any) -> AIMessage:
        return AIMessage("", tool_calls=[_call(name, **arguments)])

    # The specialists

    def specialist(self, name: Specialist, messages: Conversation) -> AIMessage:
        slip = _slip(messages)
        found = _found(messages)
        if not found and (calls := self._look_up(name, slip)):
            return AIMessage("", tool_calls=calls)
        return AIMessage(self._draft(name, slip, found))

    def _look_up(self, name: Specialist, slip: Slip) -> list[Members]:
        own = {"booking": self._days, "weather_and_safety": self._passengers, "vouchers_and_prices": self._prices}
        topics = [it for it in self._business.topics_of(name) if mentions(slip.part, self._business.rules[it].words)]
        return [*own[name](slip), *(_call("house_rule", topic=topic) for topic in topics)]

    def _days(self, slip: Slip) -> list[Members]:
        if mentions(slip.text, BOOKED):
            return []
        persons = reading.persons(slip.text)
        days = reading.days(f"{slip.subject}. {slip.text}", slip.received)
        return [_call("free_places", day=day.isoformat(), persons=persons) for day in days]

    def _passengers(self, slip: Slip) -> list[Members]:
        """Weight and age are of one passenger where one of each is told; else each is looked at alone."""
        weights, ages = reading.weights(slip.text), reading.ages(slip.text)
        if len(weights) == len(ages) == 1:
            return [_call("passenger_check", weight_kg=weights[0], age=ages[0])]
        return [
            *(_call("passenger_check", weight_kg=weight) for weight in weights),
            *(_call("passenger_check", age=age) for age in ages),
        ]

    def _prices(self, slip: Slip) -> list[Members]:
        calls = [_call("voucher", code=code) for code in reading.vouchers(slip.text)]
        if not mentions(slip.part, [*COSTS, *self._business.photos.words]):
            return calls
        persons, photos = reading.persons(slip.text), mentions(slip.text, self._business.photos.words)
        named = [flight.id for flight in self._business.flights.values() if mentions(slip.text, flight.words)]
        asked: list[Members] = [{"flight": flight} for flight in named] or [{}]
        return calls + [_call("price", **flight, persons=persons, photos=photos) for flight in asked]

    def _draft(self, name: Specialist, slip: Slip, found: list[tuple[str, Members]]) -> str:
        language = reading.language(f"{slip.subject} {slip.text}")
        said = [sentence for tool, result in found for sentence in self._teller.tell(tool, result, language)]
        if slip.remark:
            said.append(self._teller.say("consent", language))
        if not found:
            said.append(self._teller.say(IN_GENERAL[name], language))
        return " ".join(dict.fromkeys(said))
