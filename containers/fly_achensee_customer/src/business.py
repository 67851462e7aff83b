"""The business as its data file has it."""

from __future__ import annotations

import tomllib
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

Specialist = Literal["booking", "weather_and_safety", "vouchers_and_prices"]
SPECIALISTS: tuple[Specialist, ...] = get_args(Specialist)


class Flight(NamedTuple):
    id: str
    de: str
    en: str
    words: list[str]
    minutes: int
    price: int  # euros a person


class Voucher(NamedTuple):
    flight: str
    valid_until: str
    redeemed: bool


class Rule(NamedTuple):
    """What customers are told about a topic, and the words by which enquiries speak of it."""

    specialist: Specialist
    words: list[str]
    de: str
    en: str


class Extra(NamedTuple):
    de: str
    en: str
    words: list[str]
    price: int  # euros a person


class Limits(NamedTuple):
    weight_min: int
    weight_max: int
    age_min: int
    age_adult: int


class Business(NamedTuple):
    name: str
    phone: str
    email: str
    season: dict[str, str]
    day: dict[str, Any]
    limits: Limits
    flights: dict[str, Flight]
    photos: Extra
    vouchers: dict[str, Voucher]
    rules: dict[str, Rule]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises TypeError for a member that is missing, or is not known."""
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        data["limits"] = Limits(**data["limits"])
        data["photos"] = Extra(**data["photos"])
        data["flights"] = {name: Flight(name, **flight) for name, flight in data["flights"].items()}
        data["vouchers"] = {code: Voucher(**voucher) for code, voucher in data["vouchers"].items()}
        data["rules"] = {topic: Rule(**rule) for topic, rule in data["rules"].items()}
        return cls(**data)

    def is_in_season(self, day: date) -> bool:
        return self.season["opens"] <= f"{day:%m-%d}" <= self.season["closes"]

    def is_sold_out(self, day: date) -> bool:
        return f"{day:%m-%d}" in self.day["sold_out"]

    def topics_of(self, specialist: Specialist) -> list[str]:
        return [topic for topic, rule in self.rules.items() if rule.specialist == specialist]
