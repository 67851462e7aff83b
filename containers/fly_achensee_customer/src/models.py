"""Who does the thinking: Claude where there is a key, and rules where there is none."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from .business import SPECIALISTS, Business
from .rules import Rules

DEFAULT_MODEL = "claude-sonnet-5"
MODEL_SECONDS = 60.0
MODEL_TOKENS = 4096

Rule = Callable[[Sequence[BaseMessage]], AIMessage]


class RuleModel(BaseChatModel):
    """A chat model that says what a rule says: the same each time, and without a network."""

    rule: Rule

    @property
    def _llm_type(self) -> str:
        return "rules"

    def _get_ls_params(self, stop: list[str] | None = None, **options: Any) -> Any:
        return {"ls_provider": "rules", "ls_model_name": "rules", "ls_model_type": "chat"}

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self.rule(messages))])

    def bind_tools(self, tools: Any, **options: Any) -> Runnable[LanguageModelInput, AIMessage]:
        """A rule knows its tools."""
        return self


class Models(Protocol):
    """The model of each role: `assign`, `review`, `reply`, or a specialist."""

    def __call__(self, role: str) -> BaseChatModel: ...


def models_for(business: Business) -> Models:
    if os.environ.get("ANTHROPIC_API_KEY"):
        try:
            return _claude()
        except ImportError:
            print("There is a key, but langchain-anthropic is not installed: the rules answer", file=sys.stderr)
    return _rules(business)


def _rules(business: Business) -> Models:
    rules = Rules(business)
    roles: dict[str, Rule] = {"assign": rules.assign, "review": rules.review, "reply": rules.reply}
    roles |= {name: partial(rules.specialist, name) for name in SPECIALISTS}
    return lambda role: RuleModel(rule=roles[role])


def _claude() -> Models:
    """Raises ImportError."""
    from langchain_anthropic import ChatAnthropic

    name = os.environ.get("ANTHROPIC_MODEL", DEFAULT_MODEL)
    claude = ChatAnthropic(
        model_name=name, max_tokens_to_sample=MODEL_TOKENS, timeout=MODEL_SECONDS, max_retries=2, stop=None
    )
    return lambda role: claude
