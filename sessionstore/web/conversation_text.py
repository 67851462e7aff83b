"""A conversation as Markdown, or as one HTML file that anybody can be sent: it fetches nothing, and nothing runs in it.

What an agent, a tool or a person said may mean harm. In HTML it is escaped, its Markdown has no HTML of its own, its
links say where they go, and the policy of the file allows no script, no frame, no form and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from functools import cache
from typing import Any, Protocol

import msgspec
from markdown_it import MarkdownIt
from markupsafe import escape

from sessionstore.adapters.claude_code import gist
from sessionstore.model.conversation import Agent, Block, Call, Image, Message, Result, Text, Thinking
from sessionstore.model.folds import Document
from sessionstore.text import for_people, shortened

MARKED = 30_000
"""Characters that are read as Markdown; what is longer is shown as it stands."""
SUMMARY = 120
Part = str | Agent
"""Text, or where the conversation of an agent comes."""
SAYS = {"assistant": "Assistant", "system": "System", "results": "Results"}
MACHINE, LATER = "machine-made", "Result of an earlier call"


class Form(Protocol):
    """How a conversation is written."""

    indent: str
    """Before each line within a sub-agent, for each level."""

    def head(self, metadata: Document) -> str: ...
    def message(self, message: Message, person: str) -> Iterator[Part]: ...
    def agent_begins(self, agent: Agent) -> str: ...
    def agent_ends(self) -> str: ...
    def note(self, words: str) -> str: ...
    def foot(self) -> str: ...


# ---------------------------------------------------------------------------- words


def speaker(message: Message, person: str) -> str:
    if message.role == "user":
        who = "Summary for the model" if message.is_summary else MACHINE if message.is_machine_made else person
        return for_people(who, is_one_line=True)
    more = for_people(" · ".join(filter(None, (message.model, message.agent_id))), is_one_line=True)
    return SAYS.get(message.role, message.role) + (f" · {more}" if more else "")


def marker(message: Message) -> str:
    """What a compaction, or the beginning of another conversation, says."""
    if message.role == "conversation":
        return f"Here begins the conversation {for_people(message.id or '', is_one_line=True)}"
    found = message.compaction
    tokens = [f"{count:,}" for count in (found.pre_tokens, found.post_tokens) if count] if found else []
    how = f" ({found.trigger})" if found and found.trigger else ""
    return for_people(f"Compacted{how}: {' to '.join(tokens)} tokens" if tokens else f"Compacted{how}")


def outcome(call: Call) -> str:
    if call.result is None:
        return "" if call.tool_use_id is None else "no result yet"
    if call.result.is_rejected:
        return "rejected"
    return "failed" if call.result.is_error else ""


def figures(message: Message) -> str:
    used = message.usage
    if used is None:
        return ""
    read = used.input_tokens + used.cache_read_tokens + used.cache_write_tokens + used.cache_write1h_tokens
    cost = "" if used.cost_usd is None else f" · ${used.cost_usd:.4f}"
    return f"{read:,} tokens in, {used.output_tokens:,} out{cost}"


def given(call: Call) -> str:
    """What a tool was given: a command as it is, all else as JSON."""
    if isinstance(call.input, dict) and call.input.keys() <= {"command", "description", "timeout"}:
        return str(call.input.get("command", ""))
    return msgspec.json.format(msgspec.json.encode(call.input), indent=2).decode()


def left_out(block: Any) -> str:
    return f"\n… {block.left_out:,} more characters are left out" if block.left_out else ""


def text_of(block: Text | Thinking) -> str:
    return for_people(block.text) + left_out(block)


def about_agent(agent: Agent) -> str:
    words = ": ".join(filter(None, (agent.agent_type, agent.task))) or agent.agent_id
    return f"Agent {shortened(for_people(words, is_one_line=True), SUMMARY)}"


def facts(metadata: Document) -> dict[str, str]:
    cost = (metadata.get("cost") or {}).get("usd") if isinstance(metadata.get("cost"), dict) else None
    found = {
        "Session": metadata["sessionId"],
        "User": metadata["userId"],
        "Project": metadata.get("project"),
        "Status": metadata["status"],
        "Began": metadata["created"],
        "Ended": metadata.get("ended"),
        "Tokens": f"{(metadata.get('tokenUsage') or {}).get('total') or 0:,}",
        "Cost": None if cost is None else f"${cost:.2f}",
    }
    return {name: for_people(str(value), is_one_line=True) for name, value in found.items() if value}


def title_of(metadata: Document) -> str:
    title = metadata.get("title")
    return for_people(title if isinstance(title, str) and title else metadata["sessionId"], is_one_line=True)


# ------------------------------------------------------------------------- Markdown


def fenced(text: str, kind: str = "") -> str:
    """A block of code that nothing in the text can end."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{kind}\n{text}\n{fence}\n\n"


class Markdown:
    """Every text as it was said; an agent's conversation stands in a quotation."""

    indent = "> "

    def head(self, metadata: Document) -> str:
        rows = "".join(f"* {name}: {value}\n" for name, value in facts(metadata).items())
        return f"# {title_of(metadata)}\n\n{rows}\n"

    def message(self, message: Message, person: str) -> Iterator[Part]:
        if message.role in ("compaction", "conversation"):
            yield f"---\n\n*{marker(message)}*\n\n---\n\n"
            return
        at = f" · {message.at}" if message.at else ""
        yield f"## {speaker(message, person)}{for_people(at)}\n\n"
        for block in message.blocks:
            yield from self.block(block)
        if used := figures(message):
            yield f"*{used}*\n\n"

    def block(self, block: Block) -> Iterator[Part]:
        if isinstance(block, Text):
            yield f"{text_of(block)}\n\n"
        elif isinstance(block, Thinking):
            quoted = "\n> ".join(text_of(block).split("\n")) or "(encrypted)"
            yield f"> *Thinking*\n>\n> {quoted}\n\n"
        elif isinstance(block, Image):
            yield f"*[{block.media_type}]*\n\n"
        elif isinstance(block, Result):
            yield f"**{LATER}**\n\n"
            yield self.result(block)
        else:
            yield from self.call(block)

    def call(self, call: Call) -> Iterator[Part]:
        how = outcome(call)
        yield f"**{for_people(call.tool, is_one_line=True)}**{f' ({how})' if how else ''}\n\n"
        yield fenced(for_people(given(call)) + left_out(call))
        if call.agent is not None:
            yield call.agent
        if call.result is not None:
            yield self.result(call.result)

    def result(self, result: Result) -> str:
        texts = (text_of(block) if isinstance(block, Text) else f"[{block.media_type}]" for block in result.blocks)
        return fenced("\n".join(texts))

    def agent_begins(self, agent: Agent) -> str:
        return f"**{about_agent(agent)}**\n\n"

    def agent_ends(self) -> str:
        return "\n"

    def note(self, words: str) -> str:
        return f"*{words}*\n\n"

    def foot(self) -> str:
        return ""


# ----------------------------------------------------------------------------- HTML

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c33; }
body { margin: 0 auto; max-width: 56rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; line-height: 1.2; } h2, h3, h4, h5, h6 { font-size: 1.05rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 2rem; font-size: .9rem; }
dd { margin: 0; } dt, footer, .at { opacity: .7; }
section { border-top: 1px solid var(--line); padding: .25rem 0 .75rem; } section > p:first-child { margin: .5rem 0; }
.user { border-left: 4px solid #48c; padding-left: .75rem; } .machine { opacity: .8; }
.mark { text-align: center; opacity: .8; } .bad { color: var(--bad); }
pre { overflow-x: auto; background: var(--soft); padding: .5rem; border-radius: 4px; font-size: .85rem; }
pre.wrap { white-space: pre-wrap; } code { font-size: .9em; }
details { border: 1px solid var(--line); border-radius: 4px; margin: .5rem 0; padding: 0 .75rem; }
summary { cursor: pointer; padding: .6rem 0; } .agent > section { margin-left: .5rem; }
img { max-width: 100%; } table { border-collapse: collapse; display: block; overflow-x: auto; }
td, th { border: 1px solid var(--line); padding: .2rem .5rem; }
blockquote { border-left: 4px solid var(--line); margin: 0; padding-left: 1rem; }
a[href]:not(.auto)::after { content: " (" attr(href) ")"; opacity: .7; font-size: .85em; }
"""
DIGEST = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{DIGEST}'; img-src data:; base-uri 'none'; form-action 'none'"
SERVED_POLICY = f"{POLICY}; frame-ancestors 'none'; sandbox allow-popups allow-popups-to-escape-sandbox"
"""Where the store itself shows it: a document of no origin, so that it has no cookie even if it could run."""
IS_BASE64 = re.compile(r"[A-Za-z0-9+/\s]*+={0,2}+\s*+")
GOES_TO = ("http://", "https://", "mailto:")


@cache
def markdown() -> MarkdownIt:
    """CommonMark with tables; no HTML, no images, and links only to what a person may open."""
    reader = MarkdownIt("commonmark", {"html": False})
    reader.enable(["table", "strikethrough"]).disable(["image", "html_block", "html_inline"])
    reader.validateLink = lambda url: url.lower().startswith(GOES_TO)  # type: ignore[method-assign]
    reader.add_render_rule("link_open", link_open)
    return reader


def link_open(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    token = tokens[index]
    token.attrSet("rel", "noopener noreferrer nofollow")
    token.attrSet("target", "_blank")
    if token.markup == "autolink":
        token.attrSet("class", "auto")
    return str(self.renderToken(tokens, index, options, env))


def html_of(text: str) -> str:
    """Markdown of somebody else's making as HTML that cannot do anything."""
    if len(text) > MARKED:
        return preformatted(text)
    return for_people(markdown().render(for_people(text)))  # again: &#8238; is a mark of direction only then


def preformatted(text: str) -> str:
    return f'<pre class="wrap">{escape(for_people(text))}</pre>\n'


class Html:
    """One file: a section a message, what is long folded away."""

    indent = ""

    def head(self, metadata: Document) -> str:
        title = escape(title_of(metadata))
        rows = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts(metadata).items())
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            '<meta name="referrer" content="no-referrer">\n'
            f"<title>{title}</title>\n<style>{STYLE}</style></head>\n<body>\n<h1>{title}</h1>\n<dl>{rows}</dl>\n"
        )

    def message(self, message: Message, person: str) -> Iterator[Part]:
        if message.role in ("compaction", "conversation"):
            yield f'<section class="mark">{escape(marker(message))}</section>\n'
            return
        kind = f"{message.role}{' machine' if message.is_machine_made else ''}{' bad' if message.is_error else ''}"
        at = f' <span class="at">{escape(for_people(message.at))}</span>' if message.at else ""
        yield f'<section class="{kind}"><p><b>{escape(speaker(message, person))}</b>{at}</p>\n'
        for block in message.blocks:
            yield from self.block(block)
        if used := figures(message):
            yield f'<p class="at">{escape(used)}</p>\n'
        yield "</section>\n"

    def block(self, block: Block) -> Iterator[Part]:
        if isinstance(block, Text):
            yield html_of(block.text) + note_of(block)
        elif isinstance(block, Thinking):
            yield f"<details><summary>Thinking</summary>{preformatted(block.text) or 'encrypted'}</details>\n"
        elif isinstance(block, Image):
            yield picture(block)
        elif isinstance(block, Result):
            yield f"<details><summary>{LATER}</summary>{result_html(block)}</details>\n"
        else:
            yield from self.call(block)

    def call(self, call: Call) -> Iterator[Part]:
        how, words = outcome(call), shortened(for_people(gist(call.input), is_one_line=True), SUMMARY)
        state = f' <span class="bad">{how}{first_line(call)}</span>' if how else ""
        tool = escape(for_people(call.tool, is_one_line=True))
        yield f"<details><summary><b>{tool}</b> <code>{escape(words)}</code>{state}</summary>\n"
        yield preformatted(given(call)) + note_of(call)
        if call.agent is not None:
            yield call.agent
        yield (result_html(call.result) if call.result else "") + "</details>\n"

    def agent_begins(self, agent: Agent) -> str:
        return f'<details class="agent"><summary>{escape(about_agent(agent))}</summary>\n'

    def agent_ends(self) -> str:
        return "</details>\n"

    def note(self, words: str) -> str:
        return f'<p class="mark">{escape(words)}</p>\n'

    def foot(self) -> str:
        return "</body></html>\n"


def note_of(block: Any) -> str:
    return f'<p class="at">{escape(left_out(block).strip())}</p>\n' if block.left_out else ""


def first_line(call: Call) -> Any:
    """Of the error, for a row always shows why it failed."""
    texts = (block.text for block in call.result.blocks if isinstance(block, Text)) if call.result else iter(())
    words = for_people(next(texts, ""), is_one_line=True)
    return escape(f": {shortened(words, SUMMARY)}" if words else "")


def result_html(result: Result) -> str:
    parts = (
        preformatted(block.text) + note_of(block) if isinstance(block, Text) else picture(block)
        for block in result.blocks
    )
    return "".join(parts) or '<p class="at">nothing</p>'


def picture(image: Image) -> str:
    if not image.data or not IS_BASE64.fullmatch(image.data):
        return f'<p class="at">[{escape(image.media_type)}]</p>\n'
    return f'<img alt="" src="data:{escape(image.media_type)};base64,{escape(image.data)}">\n'
