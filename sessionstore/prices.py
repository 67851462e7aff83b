"""Price tables: what one request to a model costs, by the operator's own prices or those of genai-prices.

Each request is priced for itself, never a sum: a price may depend on how long the prompt is, and on the day. What no
table knows is unpriced, which is not nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any, NamedTuple

import msgspec

PER = 1_000_000
"""Tokens that a price is for."""
FAST = "fast"
"""The speed that has a price of its own."""
DIGITS = 10
"""Of a cost in dollars, after the point: a tenth of the price of the cheapest token."""
PROVIDERS = {
    "bedrock": "aws",
    "aws_bedrock": "aws",
    "aws.bedrock": "aws",
    "vertex": "google",
    "vertexai": "google",
    "vertex_ai": "google",
    "gcp.vertex_ai": "google",
    "gcp.gen_ai": "google",
    "gcp.gemini": "google",
    "gemini": "google",
    "google_genai": "google",
    "azure_openai": "azure",
    "az.ai.openai": "azure",
    "azure.ai.openai": "azure",
    "mistral_ai": "mistral",
    "mistralai": "mistral",
    "xai": "x-ai",
    "x_ai": "x-ai",
}
"""What others call a provider, and genai-prices calls so; any other name is tried as it is."""
ON_BEDROCK = re.compile(
    r"(?:[a-z]+\.)?(?:anthropic|amazon|meta|mistral|cohere|deepseek|qwen|openai)\.(.+?)(?:-v\d+(?::\d+)?)?$"
)
"""A model's name with the region that may serve it, whose it is, and its revision."""


class TokenCounts(NamedTuple):
    """Of one request; `input` is without what the cache gave or took, and `cache_write` without what stays an hour."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0
    cache_write_1h: int = 0


MEMBERS = ("inputTokens", "outputTokens", "cacheReadTokens", "cacheWriteTokens", "cacheWrite1hTokens")
"""Of a usage report, in the order of `Tokens`."""


class Price(NamedTuple):
    """What a request costs in US dollars, and who says so."""

    usd: float | None
    """None: nobody knows."""
    source: str
    """`own`, `computed` or `unpriced`, as `costFrom` has it."""
    table: str | None
    """The table that it is from, with its version."""


UNPRICED = Price(None, "unpriced", None)


class Rates(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Own prices of one model: US dollars for a million tokens; a cache that has none costs what input costs."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None
    cache_write_1h: float | None = msgspec.field(default=None, name="cacheWrite1h")

    def __post_init__(self) -> None:
        if not all(rate is None or 0 <= rate < PER for rate in msgspec.structs.astuple(self)):
            raise ValueError(f"a price is from 0 to {PER} dollars for a million tokens")

    def cost_of(self, tokens: TokenCounts) -> float:
        rates = (self.input, self.output, self.cache_read, self.cache_write, self.cache_write_1h)
        rated = zip(tokens, rates, strict=True)
        return sum(number * (self.input if rate is None else rate) for number, rate in rated) / PER


Own = Mapping[str, Rates]
"""By the model's name, or `provider/model`."""


def own_prices(text: str) -> Own:
    """A file's JSON: `{"model": {"input": 3, "output": 15, "cacheRead": 0.3, …}}`. Raises ValueError."""
    return msgspec.json.decode(text, type=dict[str, Rates])


class Prices:
    """The operator's own prices, and behind them those of genai-prices, which is read when it is first needed."""

    def __init__(self, own: Own | None = None) -> None:
        self.own = own or {}

    def of(
        self,
        tokens: TokenCounts,
        model: str | None,
        *,
        provider: str | None,
        at: str,
        speed: str | None,
        is_sum: bool = False,
    ) -> Price:
        """The price of a request, or of the sum of some, at a time, RFC 3339; `speed` is `fast` where more was paid for
        that."""
        if not any(tokens):
            return Price(0.0, "computed", None)
        if not model:
            return UNPRICED
        rates = self.own.get(f"{provider}/{model}") or self.own.get(model)
        if rates is not None:
            return Price(round(rates.cost_of(tokens), DIGITS), "own", "SESSIONS_PRICES")
        usd = listed(tokens, model, provider, at, speed, is_sum)
        return UNPRICED if usd is None else Price(round(usd, DIGITS), "computed", table())

    def members(self, report: dict[str, Any], at: str) -> dict[str, Any]:
        """What a usage report that says no cost is completed by: `costUsd`, `costFrom`, `priceTable`."""
        tokens = TokenCounts(*(report.get(name) or 0 for name in MEMBERS))
        model, provider, speed = (report.get(name) for name in ("model", "provider", "speed"))
        price = self.of(
            tokens, model, provider=provider, at=report.get("at", at), speed=speed, is_sum=is_sum_in(report)
        )
        told = {"costUsd": price.usd, "costFrom": price.source, "priceTable": price.table}
        return {name: value for name, value in told.items() if value is not None}

    def limit(self, report: dict[str, Any]) -> int | None:
        """How many tokens the model of a usage report takes at once; None where no table knows that."""
        model, provider = report.get("model"), report.get("provider")
        return context_window(model, provider) if isinstance(model, str) else None


@cache
def table() -> str:
    return f"genai-prices {version('genai-prices')}"


def is_sum_in(report: dict[str, Any]) -> bool:
    """Whether a usage report may be of several requests, as metrics are."""
    return report.get("source") == "otlp_metrics"


def listed(
    tokens: TokenCounts, model: str, provider: str | None, at: str, speed: str | None, is_sum: bool
) -> float | None:
    """What genai-prices says; None where it does not know the model, or not what it costs to have it answer fast (then
    it gives the price of any other request), or where a sum may be of requests that cost more for their length."""
    from genai_prices import Usage, calc_price  # a tenth of a second, and 20 MB: only where something is priced

    cached = tokens.cache_read + tokens.cache_write + tokens.cache_write_1h
    usage = Usage(
        input_tokens=tokens.input + cached,
        output_tokens=tokens.output,
        cache_read_tokens=tokens.cache_read,
        cache_write_tokens=tokens.cache_write + tokens.cache_write_1h,
        cache_write_1h_tokens=tokens.cache_write_1h,
    )
    for name, seller in names_of(model, provider):
        with suppress(LookupError, ValueError):
            moment = datetime.fromisoformat(at)
            price = calc_price(usage, name, provider_id=seller, genai_request_timestamp=moment)
            if is_sum and has_tier_within(price.model_price, tokens.input + cached):
                return None
            if speed != FAST:
                return float(price.total_price)
            dearer = calc_price(
                usage, name, provider_id=seller, genai_request_timestamp=moment, price_context={"speed": FAST}
            )
            return None if dearer.model_price == price.model_price else float(dearer.total_price)
    return None


def has_tier_within(rates: Any, tokens: int) -> bool:
    """Whether a prompt of so many tokens may cost more for each than a short one."""
    tiers = [tier for rate in (rates.input_mtok, rates.output_mtok) for tier in getattr(rate, "tiers", ())]
    return any(tier.start < tokens for tier in tiers)


@lru_cache(maxsize=1000)
def context_window(model: str, provider: str | None) -> int | None:
    from genai_prices import Usage, calc_price

    for name, seller in names_of(model, provider):
        with suppress(LookupError, ValueError):
            return calc_price(Usage(), name, provider_id=seller).model.context_window
    return None


def names_of(model: str, provider: str | None) -> Iterator[tuple[str, str | None]]:
    """By what a table may know a model, and whose it is there: as it was said, then without what gateways add."""
    seller = PROVIDERS.get(provider.lower(), provider.lower()) if provider else None
    if seller:
        yield model, seller
    yield model, None
    owner, _, bare = model.lower().rpartition("/")
    if owner:
        owner = owner.rpartition("/")[2]
        yield bare, PROVIDERS.get(owner, owner)
        yield bare, None
    if on_bedrock := ON_BEDROCK.match(bare):
        yield bare, "aws"
        yield on_bedrock[1], None
