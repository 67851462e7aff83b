"""What the tools gave, and what else there is to say, in sentences: German or English, from phrases.toml."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any

from .business import Business
from .reading import Language

Members = dict[str, Any]

PHRASES = Path(__file__).with_name("phrases.toml")


class Teller:
    def __init__(self, business: Business) -> None:
        self._business = business
        self._phrases: dict[str, dict[Language, str]] = tomllib.loads(PHRASES.read_text(encoding="utf-8"))

    def say(self, phrase: str, language: Language, **members: Any) -> str:
        """A phrase, with what the business is called, asks for and offers at hand."""
        business = {"business": self._business.name, "phone": self._business.phone, **self._business.limits._asdict()}
        return self._phrases[phrase][language].format(**business, **self._season(language), **members)

    def tell(self, tool: str, result: Members, language: Language) -> list[str]:
        """What a tool of tools.py gave."""
        tell = {
            "free_places": self._tell_places,
            "passenger_check": self._tell_passenger,
            "price": self._tell_price,
            "voucher": self._tell_voucher,
            "house_rule": self._tell_rule,
        }
        return tell[tool](result, language)

    def _tell_places(self, result: Members, language: Language) -> list[str]:
        members = {
            "day": _day(date.fromisoformat(result["day"]), language),
            "persons": self._people(result["persons"], language),
            "pilots": result.get("pilots"),
            "times": ", ".join(result.get("times", ())),
        }
        return [self.say(result["status"], language, **members)]

    def _tell_passenger(self, result: Members, language: Language) -> list[str]:
        nouns = {"age": result["age"], "weight_kg": result["weight_kg"]}
        told = [self.say(noun, language, number=number) for noun, number in nouns.items() if number is not None]
        passenger = {"de": " und ", "en": " and "}[language].join(told)
        return [self.say(reason, language, passenger=passenger) for reason in result["reasons"] or ["allowed"]]

    def _tell_price(self, result: Members, language: Language) -> list[str]:
        phrase = "price_of_several" if result["persons"] > 1 else "price_of_one"
        persons, each = self._people(result["persons"], language), result["photos"]
        photos = self.say("with_photos", language, price=each) if each else ""
        return [
            self.say(phrase, language, flight=self._flight(flight, language), persons=persons, photos=photos, **price)
            for flight, price in result["flights"].items()
        ]

    def _tell_voucher(self, result: Members, language: Language) -> list[str]:
        members = {"code": result["code"]}
        if "flight" in result:
            members["flight"] = self._flight(result["flight"], language)
            members["valid_until"] = _day(date.fromisoformat(result["valid_until"]), language)
        return [self.say(f"voucher_{result['status']}", language, **members)]

    def _tell_rule(self, result: Members, language: Language) -> list[str]:
        return [result[language]]

    def _flight(self, flight: str, language: Language) -> str:
        return str(getattr(self._business.flights[flight], language))

    def _people(self, number: int, language: Language) -> str:
        return self._phrases["people" if number > 1 else "person"][language].format(number=number)

    def _season(self, language: Language) -> dict[str, str]:
        days = self._business.season.items()
        return {name: _month_day(date.fromisoformat(f"2000-{day}"), language) for name, day in days}


def _day(day: date, language: Language) -> str:
    return f"{_month_day(day, language)}{day.year}" if language == "de" else f"{_month_day(day, language)}, {day.year}"


def _month_day(day: date, language: Language) -> str:
    return f"{day.day}.{day.month}." if language == "de" else f"{day:%B} {day.day}"
