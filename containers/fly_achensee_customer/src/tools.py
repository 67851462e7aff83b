"""What the specialists can look up. Made for one enquiry: that of the day on which it came in."""

from __future__ import annotations

from datetime import date
from typing import Any

from langchain_core.tools import BaseTool, tool

from .business import SPECIALISTS, Business, Specialist


def tools_of(business: Business, today: date) -> dict[Specialist, list[BaseTool]]:
    """Each specialist's own. What they give is JSON."""
    own: dict[Specialist, list[BaseTool]] = {
        "booking": [_free_places(business, today)],
        "weather_and_safety": [_passenger_check(business)],
        "vouchers_and_prices": [_price(business), _voucher(business, today)],
    }
    return {name: [*own[name], _house_rule(business, name)] for name in SPECIALISTS}


def _free_places(business: Business, today: date) -> BaseTool:
    @tool
    def free_places(day: str, persons: int) -> dict[str, Any]:
        """Whether `persons` can fly on a day (YYYY-MM-DD): `free` with the times, `past`, `out_of_season`, `sold_out`
        or `too_many` for one take-off, of whom so many fly at a time."""
        return {"day": day, "persons": persons, **_places(business, date.fromisoformat(day), persons, today)}

    return free_places


def _places(business: Business, day: date, persons: int, today: date) -> dict[str, Any]:
    if day < today:
        return {"status": "past"}
    if not business.is_in_season(day):
        return {"status": "out_of_season", "season": business.season}
    if business.is_sold_out(day):
        return {"status": "sold_out"}
    pilots = business.day["pilots"]
    return {"status": "free" if persons <= pilots else "too_many", "pilots": pilots, "times": business.day["times"]}


def _passenger_check(business: Business) -> BaseTool:
    limits = business.limits

    @tool
    def passenger_check(weight_kg: int | None = None, age: int | None = None) -> dict[str, Any]:
        """Whether somebody of this weight, this age, or both can fly, and whether a parent has to consent."""
        reasons = [
            *(["too_heavy"] if weight_kg is not None and weight_kg > limits.weight_max else []),
            *(["too_light"] if weight_kg is not None and weight_kg < limits.weight_min else []),
            *(["too_young"] if age is not None and age < limits.age_min else []),
        ]
        return {
            "weight_kg": weight_kg,
            "age": age,
            "allowed": not reasons,
            "reasons": reasons,
            "parent_must_consent": not reasons and age is not None and age < limits.age_adult,
            "limits": limits._asdict(),
        }

    return passenger_check


def _price(business: Business) -> BaseTool:
    @tool
    def price(flight: str | None = None, persons: int = 1, photos: bool = False) -> dict[str, Any]:
        """What a flight costs for so many persons, in euros: one of panorama, thermal, sunset; without one, each."""
        chosen = [business.flights[flight]] if flight else business.flights.values()
        each = business.photos.price if photos else 0
        totals = {
            it.id: {"price": it.price, "minutes": it.minutes, "total": persons * (it.price + each)} for it in chosen
        }
        return {"persons": persons, "photos": each, "flights": totals}

    return price


def _voucher(business: Business, today: date) -> BaseTool:
    @tool
    def voucher(code: str) -> dict[str, Any]:
        """Whether the voucher of this code (ACH-YYYY-NNNN) is valid, expired, redeemed or unknown, and for what."""
        known = business.vouchers.get(code)
        if known is None:
            return {"code": code, "status": "unknown"}
        expired = known.valid_until < today.isoformat()
        status = "redeemed" if known.redeemed else "expired" if expired else "valid"
        return {"code": code, "status": status, "flight": known.flight, "valid_until": known.valid_until}

    return voucher


def _house_rule(business: Business, specialist: Specialist) -> BaseTool:
    topics = business.topics_of(specialist)

    @tool(description=f"What the house tells customers about a topic: one of {', '.join(topics)}.")
    def house_rule(topic: str) -> dict[str, Any]:
        rule = business.rules[topic]
        return {"topic": topic, "de": rule.de, "en": rule.en}

    return house_rule
