"""What the rules decide and write where there is no model: each takes the conversation and gives the next message.

Rules.assign      the governor's split of an enquiry into questions
Rules.specialist  look up what the part mentions, then say what was found
Rules.review      the governor's word on a draft
Rules.reply       the answer, made of the drafts
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from . import reading
from .brief import Brief
from .business import SPECIALISTS, Business, Specialist
from .reading import Language, mentions

Members = dict[str, Any]
Conversation = Sequence[BaseMessage]

PHRASES = Path(__file__).with_name("phrases.toml")
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
CONSENT = {"de": "Zustimmung eines Elternteils", "en": "consent of a parent"}


def _call(name: str, **arguments: Any) -> Members:
    return {"name": name, "args": arguments, "id": f"call-{uuid4().hex[:12]}"}


def _brief(messages: Conversation) -> Brief:
    """The last that a person, or the governor, has said."""
    return Brief.parse(
        str(next(message for message in reversed(messages) if isinstance(message, HumanMessage)).content)
    )


def _found(messages: Conversation) -> list[tuple[str, Members]]:
    """What the tools have given so far, with their names."""
    return [(str(it.name), json.loads(str(it.content))) for it in messages if isinstance(it, ToolMessage)]


class Rules:
    def __init__(self, business: Business) -> None:
        self._business = business
        self._phrases: dict[str, dict[Language, str]] = tomllib.loads(PHRASES.read_text(encoding="utf-8"))

    # The governor

    def assign(self, messages: Conversation) -> AIMessage:
        brief = _brief(messages)
        whole = f"{brief.subject}.\n\n{brief.text}"
        parts = {name: self._part(name, whole, brief) for name in SPECIALISTS}
        questions = [{"specialist": name, "text": part} for name, part in parts.items() if part]
        kind = "abusive" if mentions(whole, ABUSIVE) else "enquiry" if questions else "off_topic"
        return self._decide(
            "Assignment",
            kind=kind,
            language=reading.language(whole),
            questions=questions if kind == "enquiry" else [],
        )

    def _part(self, specialist: Specialist, whole: str, brief: Brief) -> str:
        """The sentences that concern the specialist; those with days, weights and vouchers belong to whom they tell."""
        return " ".join(it for it in reading.sentences(whole) if self._concerns(specialist, it, brief.received))

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
        body = "\n\n".join(given["drafts"]) or self._say(given["kind"], language, phone=self._business.phone)
        name = f" {given['name']}" if given["name"] else ""
        greeting = self._say("greeting", language, name=name)
        thanks = self._say("thanks", language) + "\n\n" if given["drafts"] else ""
        signature = self._say("signature", language, business=self._business.name, phone=self._business.phone)
        return AIMessage(f"{greeting}\n\n{thanks}{body}\n\n{signature}\n")

    def _decide(self, name: str, **arguments: Any) -> AIMessage:
        return AIMessage("", tool_calls=[_call(name, **arguments)])

    # The specialists

    def specialist(self, name: Specialist, messages: Conversation) -> AIMessage:
        brief = _brief(messages)
        found = _found(messages)
        if not found and (calls := self._look_up(name, brief)):
            return AIMessage("", tool_calls=calls)
        return AIMessage(self._draft(name, brief, found))

    def _look_up(self, name: Specialist, brief: Brief) -> list[Members]:
        own = {"booking": self._days, "weather_and_safety": self._passengers, "vouchers_and_prices": self._prices}
        topics = [it for it in self._business.topics_of(name) if mentions(brief.part, self._business.rules[it].words)]
        return [*own[name](brief), *(_call("house_rule", topic=topic) for topic in topics)]

    def _days(self, brief: Brief) -> list[Members]:
        if mentions(brief.text, BOOKED):
            return []
        persons = reading.persons(brief.text)
        days = reading.days(f"{brief.subject}. {brief.text}", brief.received)
        return [_call("free_places", day=day.isoformat(), persons=persons) for day in days]

    def _passengers(self, brief: Brief) -> list[Members]:
        """Weight and age are of one passenger where one of each is told; else each is looked at alone."""
        weights, ages = reading.weights(brief.text), reading.ages(brief.text)
        if len(weights) == len(ages) == 1:
            return [_call("passenger_check", weight_kg=weights[0], age=ages[0])]
        return [
            *(_call("passenger_check", weight_kg=weight) for weight in weights),
            *(_call("passenger_check", age=age) for age in ages),
        ]

    def _prices(self, brief: Brief) -> list[Members]:
        calls = [_call("voucher", code=code) for code in reading.vouchers(brief.text)]
        if not mentions(brief.part, [*COSTS, *self._business.photos.words]):
            return calls
        persons, photos = reading.persons(brief.text), mentions(brief.text, self._business.photos.words)
        named = [flight.id for flight in self._business.flights.values() if mentions(brief.text, flight.words)]
        asked: list[Members] = [{"flight": flight} for flight in named] or [{}]
        return calls + [_call("price", **flight, persons=persons, photos=photos) for flight in asked]

    def _draft(self, name: Specialist, brief: Brief, found: list[tuple[str, Members]]) -> str:
        language = reading.language(f"{brief.subject} {brief.text}")
        said = [sentence for tool, result in found for sentence in self._tell(tool, result, language)]
        if name == "booking" and not found:
            said.append(self._season("which_day", language))
        if brief.remark:
            said.append(self._say("consent", language, **self._business.limits._asdict()))
        return " ".join(dict.fromkeys(said)) or self._nothing_found(name, language)

    def _nothing_found(self, name: Specialist, language: Language) -> str:
        if name == "weather_and_safety":
            return self._say("limits", language, **self._business.limits._asdict())
        return self._say("asked_back", language)

    # What the tools gave, in sentences

    def _tell(self, tool: str, result: Members, language: Language) -> list[str]:
        tell = {
            "free_places": self._tell_places,
            "passenger_check": self._tell_passenger,
            "price": self._tell_price,
            "voucher": self._tell_voucher,
            "house_rule": self._tell_rule,
        }
        return tell[tool](result, language)

    def _tell_places(self, result: Members, language: Language) -> list[str]:
        day = self._day(result["day"], language)
        if result["status"] == "out_of_season":
            return [self._season("out_of_season", language, day=day)]
        persons, times = self._people(result["persons"], language), ", ".join(result.get("times", ()))
        return [
            self._say(result["status"], language, day=day, persons=persons, times=times, pilots=result.get("pilots"))
        ]

    def _tell_passenger(self, result: Members, language: Language) -> list[str]:
        told = [name for name in ("age", "weight_kg") if result[name] is not None]
        noun = {"age": "age", "weight_kg": "weight"}
        together = {"de": " und ", "en": " and "}[language]
        passenger = together.join(self._say(noun[name], language, **{name: result[name]}) for name in told)
        reasons = result["reasons"] or ["allowed"]
        return [self._say(reason, language, passenger=passenger, **result["limits"]) for reason in reasons]

    def _tell_price(self, result: Members, language: Language) -> list[str]:
        persons, photos = self._people(result["persons"], language), ""
        if result["photos"]:
            photos = self._say("with_photos", language, price=result["photos"])
        phrase = "price_of_several" if result["persons"] > 1 else "price_of_one"
        return [
            self._say(
                phrase, language, flight=self._flight(it, language), persons=persons, **{**price, "photos": photos}
            )
            for it, price in result["flights"].items()
        ]

    def _tell_voucher(self, result: Members, language: Language) -> list[str]:
        members = dict(result)
        if "flight" in members:
            members["flight"] = self._flight(members["flight"], language)
            members["valid_until"] = self._day(members["valid_until"], language)
        return [self._say(f"voucher_{result['status']}", language, **members)]

    def _tell_rule(self, result: Members, language: Language) -> list[str]:
        return [result[language]]

    def _flight(self, flight: str, language: Language) -> str:
        return str(getattr(self._business.flights[flight], language))

    def _season(self, phrase: str, language: Language, **members: Any) -> str:
        opens, closes = (
            self._month_day(date.fromisoformat(f"2000-{it}"), language) for it in self._business.season.values()
        )
        return self._say(phrase, language, opens=opens, closes=closes, **members)

    def _people(self, number: int, language: Language) -> str:
        return self._say("people" if number > 1 else "person", language, number=number)

    def _day(self, day: str, language: Language) -> str:
        when = date.fromisoformat(day)
        return f"{self._month_day(when, language)}{'' if language == 'de' else ', '}{when.year}"

    def _month_day(self, day: date, language: Language) -> str:
        return f"{day.day}.{day.month}." if language == "de" else f"{day:%B} {day.day}"

    def _say(self, phrase: str, language: Language, **members: Any) -> str:
        return self._phrases[phrase][language].format(**members)
