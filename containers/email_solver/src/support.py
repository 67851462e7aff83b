"""The support desk's tools, of a real MCP server that is started as a child process, for LangChain."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool, StructuredTool, ToolException
from mcp import Client, StdioServerParameters
from mcp.types import TextContent, Tool

from containers.work_loop import Reporter, Trouble

HERE = Path(__file__).parent.parent
START_SECONDS = 30.0
PREFIX = "mcp__support__"
"""As Claude Code names the tools of MCP servers: the store counts them apart."""


@asynccontextmanager
async def support_tools(reporter: Reporter, knowledge: Path, tickets: Path) -> AsyncIterator[dict[str, BaseTool]]:
    """The tools by their own names, while the server runs. Raises Trouble if it does not start."""
    command = [sys.executable, "-m", "src.support_server"]
    environment = {
        "KNOWLEDGE": str(knowledge),
        "TICKETS": str(tickets),
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
    }
    parameters = StdioServerParameters(command=command[0], args=command[1:], cwd=HERE, env=environment)
    reporter.notes("mcp_start", server="support", command=command)
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(Client(parameters, read_timeout_seconds=START_SECONDS))
            tools = (await client.list_tools()).tools
        except Exception as error:  # of many kinds: it cannot be started, dies, or does not speak MCP
            reporter.service("support", False, error=str(error))
            raise Trouble(f"The support server did not start: {type(error).__name__}: {error}") from error
        version = client.server_info.version if client.server_info else None
        names = [tool.name for tool in tools]
        reporter.service("support", True, tools=names, version=version, protocol=client.protocol_version)
        stack.callback(reporter.service, "support", False)
        yield {tool.name: _as_langchain(client, tool) for tool in tools}


def _as_langchain(client: Client, tool: Tool) -> BaseTool:
    return StructuredTool(
        name=PREFIX + tool.name,
        description=tool.description or tool.name,
        args_schema=tool.input_schema,
        coroutine=_caller(client, tool.name),
    )


def _caller(client: Client, name: str) -> Callable[..., Coroutine[Any, Any, str]]:
    async def call(**arguments: Any) -> str:
        """What the server said, as JSON. Raises ToolException where it refused, and Trouble if it is gone."""
        try:
            result = await client.call_tool(name, arguments)
        except Exception as error:  # a tool that fails raises nothing here
            raise Trouble(f"The support server is gone: {type(error).__name__}: {error}") from error
        text = " ".join(part.text for part in result.content if isinstance(part, TextContent))
        if result.is_error:
            raise ToolException(text)
        return json.dumps(result.structured_content, ensure_ascii=False) if result.structured_content else text

    return call
