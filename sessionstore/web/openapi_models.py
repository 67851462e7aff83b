"""The shapes of the answers, for the OpenAPI document: the views of schema.sql make the answers themselves."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from msgspec import UNSET, UnsetType

from sessionstore.analytics.catalogue import CannedQuery
from sessionstore.model.conversation import Message
from sessionstore.model.events import EventType
from sessionstore.model.folds import Document
from sessionstore.model.problems import MEDIA_TYPE, title
from sessionstore.web.openapi import takes

Status = Literal["active", "waiting", "completed", "failed", "cancelled", "lost"]


class Shape(msgspec.Struct, rename="camel", kw_only=True):
    """Members that the contract names; more may come."""


class Done(Shape, kw_only=True):
    """A write that is on disk."""

    success: bool
    cursor: int
    event_id: str


class Logged(Done, kw_only=True):
    """An entry that is on disk, and its place in its log."""

    seq: int


class Metadata(Shape, kw_only=True):
    """metadata.json, as section 7 of the contract has it."""

    session_id: str
    user_id: str
    created: str
    updated: str
    status: Status
    model: str | None
    yolo_mode: bool
    token_usage: dict[str, int]
    metrics: Document
    tags: list[str]
    parent_session: str | None
    subsessions: list[str]
    attention: Document | None
    phase: str | None
    current_step: str | None
    goals: int
    agents: int
    actions: int
    responses: int
    ended: str | None
    duration: int | None
    resumes: int
    last_cursor: int
    title: str | UnsetType | None = UNSET
    title_from: Literal["person", "caller", "agent", "prompt"] | UnsetType | None = UNSET
    project: str | UnsetType | None = UNSET
    pinned: bool | UnsetType = UNSET
    where: Document | UnsetType = UNSET
    asks: int | UnsetType = UNSET
    cost: Document | UnsetType = UNSET
    context: Document | UnsetType = UNSET


class Active(Metadata, kw_only=True):
    """A session that goes on, and what it is at: texts are cut; `errors` are those among its last 50 responses."""

    last_prompt: str | None
    last_action: Document | None
    errors: int
    goals_completed: int
    agents_active: int


class Entered(Done, kw_only=True):
    """A session that was created or resumed."""

    session_id: str
    path: str
    metadata: Metadata


class Versioned(Done, kw_only=True):
    """A change of the state."""

    version: int


class GoalDone(Versioned, kw_only=True):
    """A change of a goal, and the goal as it is then."""

    goal: Document


class AgentDone(Versioned, kw_only=True):
    """A change of an agent, and the agent as it is then."""

    agent: Document


class Spawned(Versioned, kw_only=True):
    """The agent that was spawned."""

    agent_id: str
    type: str
    task: Any
    status: str
    spawned_at: str
    subsession: str | None


class Rejected(Shape, kw_only=True):
    """A line of a batch that was not stored."""

    line: int
    status: int
    detail: str
    moved_to: str | UnsetType = UNSET
    """With 421: the URL of the store that has its session now."""


class Batch(Shape, kw_only=True):
    """What became of a batch. `rejected` has the first 1,000 lines that were not taken, `rejectedTotal` says how many
    there were; `cursor` is the newest of the whole store, null if nothing was ever stored."""

    success: bool
    accepted: int
    duplicates: int
    rejected: list[Rejected]
    rejected_total: int
    cursor: int


class EventShape(Shape, kw_only=True):
    """One thing that happened: section 2 of the contract."""

    cursor: int
    type: EventType
    session_id: str
    user_id: str
    event_id: str
    agent_id: str | None
    timestamp: str
    received_at: str
    actor: str | UnsetType | None = UNSET
    data: Document
    patch: Literal["merge-patch", "replace"] | UnsetType = UNSET
    brief: bool | UnsetType = UNSET


class Entry(Shape, kw_only=True):
    """An entry of a log: the caller's members, and these."""

    seq: int
    timestamp: str
    type: str
    cursor: int
    event_id: str


class Session(Shape, kw_only=True):
    """All of a session."""

    metadata: Metadata
    initial: Document
    state: Document
    actions: list[Entry]
    responses: list[Entry]
    final: Document | None
    truncated: dict[str, int] | UnsetType = UNSET


class KeptConversation(Shape, kw_only=True):
    """One that is kept of a session, under what the agent's program calls it; `mtime`: milliseconds since 1970."""

    folder: str
    session: str
    source: Literal["sdk", "file"]
    lines: int
    bytes: int
    mtime: int


class Resume(Shape, kw_only=True):
    """All that an agent needs to go on."""

    metadata: Metadata
    initial: Document
    state: Document
    last_actions: list[Entry]
    last_responses: list[Entry]
    conversations: list[KeptConversation]


class Group(Shape, kw_only=True):
    """How many sessions have a project, user, branch, host or tag in common; `key` is null for those without one."""

    key: str | None
    sessions: int
    active: int
    waiting: int
    failed: int
    lost: int
    cost_usd: float | None


class SessionPage(Shape, kw_only=True):
    """Some sessions; `nextCursor` as `cursor` gives the next. With `groupBy` there are only `groups`, at most 1,000."""

    items: list[Metadata] | UnsetType = UNSET
    next_cursor: int | UnsetType | None = UNSET
    groups: list[Group] | UnsetType = UNSET


class SessionOfUser(Shape, kw_only=True):
    """A session in the list of its user."""

    session_id: str
    user_id: str
    created: str


class EventPage(Shape, kw_only=True):
    """Some events; `nextAfter` as `after` goes on."""

    items: list[EventShape]
    next_after: int | None


class Found(Shape, kw_only=True):
    """An event that a search found, and where. `marked` is the snippet in pieces: every second one was asked for."""

    event: EventShape
    snippet: str
    marked: list[str]


class FoundPage(Shape, kw_only=True):
    """What a search found, best first.

    `total`: how many events have it, of which at most the newest 5,000 are looked at; `behind`: how many of the
    newest events are not searched yet.
    """

    items: list[Found]
    total: int
    behind: int


class Connections(Shape, kw_only=True):
    """The WebSocket clients."""

    total_connections: int
    users: int
    sessions: int


class DatabaseHealth(Shape, kw_only=True):
    """What was found when the server started; unless it is `ok`, nothing of the database is served."""

    status: Literal["ok", "behind", "damaged"]
    error: str | None


class BackupHealth(Shape, kw_only=True):
    """The newest backup: when it was made, what it holds, and what went wrong since."""

    status: Literal["off", "pending", "ok", "failed"]
    last: str | None
    cursor: int | None
    error: str | None


class TreeHealth(Shape, kw_only=True):
    """The file tree: the cursor that it has come to, and by how many events it is behind."""

    status: Literal["off", "ok", "behind", "failed"]
    cursor: int
    lag: int
    error: str | UnsetType | None = UNSET


class DiskHealth(Shape, kw_only=True):
    """The disk of the database. `full`: writes are refused until more than the reserve is free."""

    status: Literal["ok", "low", "full"]
    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    free_files: int
    total_files: int
    """Inodes; 0: the file system makes as many as it has room for."""


class VerifyHealth(Shape, kw_only=True):
    """When the database was last compared with itself and with the file tree, and what was found wrong."""

    status: Literal["off", "pending", "ok", "failed"]
    last: str | None
    error: str | None


class RetentionHealth(Shape, kw_only=True):
    """How many sessions this process has deleted unasked, and what keeps it from deleting more."""

    status: Literal["off", "ok", "failed"]
    deleted: int
    error: str | None


class LakeHealth(Shape, kw_only=True):
    """How far the lake has this store's events (`sealed`: a cursor), and for how long it has not had the oldest other;
    `displaced`: another store has its name."""

    status: Literal["off", "pending", "ok", "failed", "displaced"]
    shard: str | None
    sealed: int | None
    unsealed_seconds: float
    last: str | None
    error: str | None


Checks = dict[str, Literal["pass", "warn", "fail"]]
"""`warn` concerns what is made of what is written, or may end the writing; `fail`: nothing is written."""


class WebhookHealth(Shape, kw_only=True):
    """How telling others by HTTP goes."""

    status: str
    pending: int


class MaterialHealth(Shape, kw_only=True):
    """How much material is kept; `bytes`: on disk."""

    transcripts: int
    lines: int
    threads: int
    bytes: int


class Health(Shape, kw_only=True):
    """How the server is; what is inside only for who has a token, where one is needed."""

    status: str
    role: str | None
    tokens: bool
    uptime: str
    uptime_seconds: float
    websocket: Connections
    storage: str
    version: str
    cursor: int
    search_lag: int
    checks: Checks
    tree: TreeHealth
    sqlite: str | UnsetType = UNSET
    database: DatabaseHealth | UnsetType = UNSET
    backup: BackupHealth | UnsetType = UNSET
    disk: DiskHealth | UnsetType = UNSET
    retention: RetentionHealth | UnsetType = UNSET
    lake: LakeHealth | UnsetType = UNSET
    verify: VerifyHealth | UnsetType = UNSET
    webhooks: WebhookHealth | UnsetType = UNSET
    material: MaterialHealth | UnsetType | None = UNSET


class Webhook(Shape, kw_only=True):
    """Who is told of sessions, and how that goes; `held`: what is told later, by its quiet hours or `atMost`."""

    name: str
    place: str
    format: str
    on: list[str]
    rules: dict[str, float]
    quiet: str | None
    urgent: list[str]
    at_most: str
    pending: int
    held: int
    failures: int
    delivered: int
    refused: int
    last_delivery: str | None
    error: str | None


class WebhookList(Shape, kw_only=True):
    """All of them."""

    items: list[Webhook]


class Ready(Shape, kw_only=True):
    """Writes are taken."""

    status: str
    checks: Checks


class Telemetry(Shape, kw_only=True):
    """Empty where all was taken."""

    partial_success: Document | UnsetType = UNSET


class UsageItem(Shape, kw_only=True):
    """What was used, and what it cost: `costUsd` is null where nothing is priced, and says nothing of what is not."""

    requests: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    cache_write_1h_tokens: int = msgspec.field(name="cacheWrite1hTokens")
    reasoning_tokens: int
    total_tokens: int
    cost_usd: float | None
    unpriced_requests: int


class SessionUsage(Shape, kw_only=True):
    """What a session has used, the dearest first; each item has the model, agent or prompt that it is of."""

    by_model: list[UsageItem]
    by_agent: list[UsageItem]
    by_prompt: list[UsageItem]
    total: UsageItem


class ChangedHunk(Shape, kw_only=True):
    """Lines that begin with `+`, `-` or a space; where they stand, before and after."""

    old_start: int
    old_lines: int
    new_start: int
    new_lines: int
    lines: list[str]


class ChangedFile(Shape, kw_only=True):
    """A file that edits were made to. `isNet`: its hunks lead from what it was to what it has come to be; else they are
    those of its edits, of which `unknown` do not say enough. `leftOut`: hunks beyond what an answer has."""

    path: str
    edits: int
    failed: int
    unknown: int
    is_new: bool
    is_net: bool
    added: int
    removed: int
    hunks: list[ChangedHunk]
    left_out: int


class TestRun(Shape, kw_only=True):
    """A run of tests, and the line in which it says how it went."""

    cursor: int
    command: str
    timestamp: str
    duration_ms: int | None
    status: Literal["passed", "failed", "unknown"]
    verdict: str


class ToldByCommand(Shape, kw_only=True):
    """What a command has told of, at the cursor of its call."""

    cursor: int
    text: str


class SessionChanges(Shape, kw_only=True):
    """What came of a session, as its calls of tools tell it."""

    files: list[ChangedFile]
    tests: TestRun | None
    commits: list[ToldByCommand]
    pull_requests: list[ToldByCommand]


class UsagePage(Shape, kw_only=True):
    """What was used, the dearest first; each item has what it was asked by."""

    items: list[UsageItem]


class BudgetItem(Shape, kw_only=True):
    """A budget, and how much of it is used; `key` says by whom, where each has its own."""

    name: str
    scope: dict[str, str]
    per: Literal["session", "day", "month"]
    period: str | None
    key: str | None
    unit: Literal["usd", "tokens"]
    limit: float
    spent: float
    share: float
    status: Literal["ok", "warn", "over"]
    unpriced_requests: int


class Budgets(Shape, kw_only=True):
    """The budgets of which something is used."""

    items: list[BudgetItem]


class AskAnswer(Shape, kw_only=True):
    """What was answered, by whom, and whether the agent has it."""

    answer_id: str
    decision: Literal["allow", "deny", "answer"]
    message: str | None
    answers: Any
    input: Document | None
    by: str | None
    at: str
    status: Literal["waiting", "delivered", "expired", "refused"] | None
    settled_at: str | None


class AskItem(Shape, kw_only=True):
    """What an agent wants from a person."""

    ask_id: str
    session_id: str
    user_id: str
    project: str | None
    agent_id: str | None
    kind: Literal["permission", "question", "plan", "elicitation", "interrupt", "budget"]
    tool: str | None
    input: Any
    text: str
    options: list[Any]
    tool_use_id: str | None
    since: str
    deadline: str | None
    status: Literal["open", "answered", "closed"]
    ended_by: str | None
    can_answer: bool
    answer: AskAnswer | None


class AskPage(Shape, kw_only=True):
    """Some asks, the oldest first; `nextCursor` as `cursor` gives the next."""

    items: list[AskItem]
    next_cursor: int | None


class Answered(Done, kw_only=True):
    """An answer that is on disk, and on its way to the agent."""

    answer_id: str
    ask_id: str


class Ordered(Done, kw_only=True):
    """An order that is on disk, and on its way to the agent."""

    order_id: str


class OrderedAll(Done, kw_only=True):
    """An order to many sessions: how many, and which of those that are meant cannot be reached."""

    order_id: str
    ordered: int
    unreachable: list[str]
    unreachable_total: int


class OrderItem(Shape, kw_only=True):
    """An order and what became of it: `at` which call, or `why` not. A pause is open until it is released."""

    order_id: str
    session_id: str
    user_id: str
    order: Literal["stop", "pause", "release", "say"]
    text: str | None
    agent_id: str | None
    releases: str | None
    expires: str | None
    by: str | None
    since: str
    status: Literal["waiting", "delivered", "expired", "refused"]
    is_open: bool
    settled_at: str | None
    at: str | None
    why: str | None


class OrderPage(Shape, kw_only=True):
    """Some orders, the newest first; `nextCursor` as `cursor` gives the next."""

    items: list[OrderItem]
    next_cursor: int | None
    reach: Document | UnsetType = UNSET


class ControlItem(Shape, kw_only=True):
    """What an agent's side is to carry out: an answer, an order; or that an ask is not open any more."""

    id: str
    kind: Literal["answer", "order", "closed"]
    ask_id: str | UnsetType = UNSET
    decision: Literal["allow", "deny", "answer"] | UnsetType = UNSET
    message: str | UnsetType = UNSET
    answers: Any = UNSET
    input: Document | UnsetType = UNSET
    order: Literal["stop", "pause", "release", "say"] | UnsetType = UNSET
    text: str | UnsetType = UNSET
    agent_id: str | UnsetType = UNSET
    releases: str | UnsetType = UNSET
    expires: str | UnsetType | None = UNSET
    why: str | UnsetType = UNSET
    by: str | UnsetType | None = UNSET


class ControlItems(Shape, kw_only=True):
    """All that there is for now."""

    items: list[ControlItem]


class Stats(Shape, kw_only=True):
    """Counts over the whole store."""

    total: int
    active: int
    completed: int
    active_sessions: list[str]
    completed_sessions: list[str]
    sessions: dict[str, int]
    users: int
    actions: int
    responses: int
    goals: dict[str, int]
    agents: dict[str, int]
    events: int
    events_today: int
    events_per_minute: list[int]
    database_bytes: int


class Waiting(Shape, kw_only=True):
    """A session that waits for a person, since when and for what; texts are cut."""

    session_id: str
    user_id: str
    since: str | None
    title: str | None
    project: str | None
    reason: str | None
    message: str | None


class Summary(Shape, kw_only=True):
    """A store in a few figures; `waiting`: those that have waited for longest, 50 at most."""

    version: str
    cursor: int
    sessions: dict[str, int]
    events_today: int
    events_last_minute: int
    waiting: list[Waiting]


class Questions(Shape, kw_only=True):
    """All of them, in their order."""

    items: list[CannedQuery]


class LoggedIn(Shape, kw_only=True):
    """The role that a token has."""

    success: bool
    role: str


class LoginState(Shape, kw_only=True):
    """As whom a browser comes; `pageToken`: null for who sends a token with each request."""

    role: str | None
    name: str | None
    can_control: bool
    page_token: str | None


class LoggedOut(Shape, kw_only=True):
    """The cookie is gone."""

    success: bool


class KeptLines(Shape, kw_only=True):
    """Lines of a conversation that are on disk: of this request, and of a batch that was there before."""

    success: bool
    count: int
    duplicates: int
    lines: int
    generation: int


class Refused(Shape, kw_only=True):
    """A file that was not taken."""

    path: str
    why: str


class Imported(Shape, kw_only=True):
    """What was new: lines, events, reports of usage. `passedOver`: files that are no conversations; `rejected`: what
    would have been an event, and cannot be one."""

    success: bool
    sessions: int
    files: int
    passed_over: int
    lines: int
    events: int
    usage: int
    rejected: int
    refused: list[Refused]


class KeptSession(Shape, kw_only=True):
    """A conversation that is kept."""

    session_id: str
    mtime: int
    summary: Document | UnsetType | None = UNSET
    version: int | UnsetType = UNSET
    summary_mtime: int | UnsetType | None = UNSET


class Summarized(Shape, kw_only=True):
    """A summary that is on disk."""

    success: bool
    version: int


class DeletedMaterial(Shape, kw_only=True):
    """How much there was."""

    success: bool
    deleted: int


class Succeeded(Shape, kw_only=True):
    """It is on disk."""

    success: bool


class KeptCheckpoints(Succeeded, kw_only=True):
    """How many lines are on disk."""

    count: int


class Step(Shape, kw_only=True):
    """A checkpoint of a thread without what is in it."""

    id: str
    ns: str
    parent: str | None
    at: int
    about: Document
    channels: list[str]
    written: list[str]
    waits: bool


class Steps(Shape, kw_only=True):
    """Some of them, and from where to go on."""

    items: list[Step]
    next_before: str | None


class Thread(Shape, kw_only=True):
    """A thread that is kept."""

    thread: str
    session_id: str | None
    created: int
    updated: int
    checkpoints: int


class ThreadPage(Shape, kw_only=True):
    """Some of them, and from where to go on."""

    items: list[Thread]
    next_after: str | None


class SharedSession(Shape, kw_only=True):
    """A read-only link to a session."""

    share_id: str
    session_id: str
    created: str
    expires: str
    by: str | None


class NewShare(SharedSession, kw_only=True):
    """One that was made: its capability, and what stands behind the address of the page."""

    success: bool
    capability: str
    fragment: str


class Shares(Shape, kw_only=True):
    """Those that last."""

    items: list[SharedSession]


class PushOffer(Shape, kw_only=True):
    """The key that a browser subscribes with (`applicationServerKey`); null where this server cannot push: `why`."""

    public_key: str | None
    why: str | None


class PushSubscribed(Succeeded, kw_only=True):
    """By which it ends."""

    subscription_id: str
    expires: str


class PushEnded(Succeeded, kw_only=True):
    """Whether there was one."""

    ended: bool


class EndedShares(Succeeded, kw_only=True):
    """How many there were."""

    ended: int


class SubAgent(Shape, kw_only=True):
    """An agent that has a conversation of its own: `?agentId=`."""

    agent_id: str
    agent_type: str | None
    task: str | None
    tool_use_id: str | None


class Conversation(msgspec.Struct, kw_only=True):
    """What was said: `nextAfter` goes on, also after an empty page, and `more` says that there is more already.
    `nextBefore` goes back, where `before` was asked for. `isAnew`: `after` or `before` was of what is not there any
    more, and these are the first or last messages."""

    source: Literal["transcript", "events"] = msgspec.field(name="from")
    items: list[Message]
    next_after: str = msgspec.field(name="nextAfter")
    next_before: str | None = msgspec.field(name="nextBefore")
    more: bool
    is_anew: bool = msgspec.field(name="isAnew")
    agents: list[SubAgent]


class ProblemShape(Shape, kw_only=True):
    """An error: RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    error: str
    errors: list[dict[str, str]] | UnsetType = UNSET


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """The problems that an operation may tell: these, and those of every request that is not let in."""
    return {
        status: ResponseSpec(ProblemShape, description=title(status), media_type=MEDIA_TYPE, generate_examples=False)
        for status in (400, 403, 429, *statuses)
    }


def gives(shape: Any, *statuses: int, status: int = 200) -> dict[int, ResponseSpec]:
    """The responses of an operation that wants a token: its answer, and the problems that it may tell."""
    description = (shape.__doc__ if isinstance(shape, type) else None) or "What was asked for"
    answer = ResponseSpec(shape, description=description, generate_examples=False)
    return {status: answer} | problems(401, 503, *statuses)


def exchanges(taken: type[msgspec.Struct], shape: Any, *statuses: int, **of_body: Any) -> dict[str, Any]:
    """The declaration of a handler that reads a body of the shape `taken`, which may have problems of its own beside
    those of `statuses`. `of_body`: as `takes` has it, and `status`, unless that is 200."""
    status = of_body.pop("status", 200)
    responses = gives(shape, *statuses, 413, 415, 422, status=status)
    return {"operation_class": takes(taken, **of_body), "responses": responses, "status_code": status}
