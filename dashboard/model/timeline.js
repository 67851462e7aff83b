/* The timeline: lanes, a scale that folds idle time, and what a person asks of a whole log. */
import { agentName, isCompaction } from "./faces.js";
import { runsOf } from "./log.js";
import { oneLine, shortId } from "./words.js";

/** [{id, name, depth, spans, marks}]: the session itself first, then its agents in the order of their coming. An agent has
    a span for each of its runs. */
export function lanesOf(rows, agents, now) {
  const lanes = new Map([["", { id: "", name: "session", depth: 0, spans: [], marks: [] }]]);
  const known = new Map(agents.map((agent) => [agent.agentId, agent]));
  const lane = (id) => {
    if (!lanes.has(id)) {
      const agent = known.get(id);
      const depth = agent?.parentAgentId && agent.parentAgentId !== id && known.has(agent.parentAgentId) ? 2 : 1;
      lanes.set(id, { id, name: agentName(agent ?? { agentId: id }), depth, spans: [], marks: [] });
    }
    return lanes.get(id);
  };
  for (const row of rows) {
    const [event] = row.events;
    const id = row.agentId ?? (event.type.startsWith("agent_") && !isCompaction(event) ? event.data.agentId ?? "" : "");
    const from = row.end === null && row.took && row.state ? row.time - row.took : row.time;
    const to = row.state === "running" ? Math.max(now, row.time) : row.end ?? row.time;
    lane(id).marks.push({ cursor: row.key, from, to, kind: row.kind, state: row.state,
      label: `${row.title}${row.text ? `: ${oneLine(row.text)}` : ""}`, title: row.title, minor: row.minor });
  }
  const runs = runsOf(rows.flatMap((row) => row.events).filter((event) => event.type.startsWith("agent_")));
  for (const { id, spans, marks } of lanes.values()) if (id) spans.push(...spansOf(runs.get(id) ?? [], marks));
  const all = [...lanes.values()], isTwice = ({ name }) => all.filter((each) => each.name === name).length > 1;
  return all.map((each) => ({ ...each, name: isTwice(each) && each.id ? `${each.name} ${shortId(each.id)}` : each.name, ...packed(each.marks) }));
}

function spansOf(runs, marks) {
  const until = Math.max(...marks.map((mark) => mark.to));
  return runs.length ? runs.map(({ from, to }) => ({ from, to: Math.max(from, to ?? until) }))
    : [{ from: Math.min(...marks.map((mark) => mark.from)), to: until }];
}

/** Marks with a `line` each, so that those that go on at the same time stand under each other; 4 lines at most. */
export function packed(marks) {
  const free = [];
  const placed = [...marks].sort((a, b) => a.from - b.from || a.cursor - b.cursor).map((mark) => {
    let line = free.findIndex((until) => until <= mark.from);
    if (mark.to === mark.from) line = 0;
    else if (line < 0) line = free.length < 4 ? free.length : 3;
    if (mark.to > mark.from) free[line] = mark.to;
    return { ...mark, line };
  });
  return { marks: placed, lines: Math.max(1, free.length) };
}

const FOLD = 34;        // px that a folded gap takes
/** Time to x and back: the pieces in which something goes on share `width`, idle gaps between them are folded. */
export function scaleOf(marks, { width, fold = true }) {
  if (!marks.length) return { pieces: [], width, x: () => 0, time: () => 0, step: 1000 };
  const spans = marks.map(({ from, to }) => [from, to]).sort((a, b) => a[0] - b[0]);
  const merged = [[...spans[0]]];
  const whole = Math.max(...spans.map(([, to]) => to)) - spans[0][0];
  const idle = fold ? Math.max(20_000, whole / 25) : Infinity;
  for (const [from, to] of spans) {
    const last = merged.at(-1);
    if (from - last[1] > idle) merged.push([from, to]);
    else last[1] = Math.max(last[1], to);
  }
  const busy = merged.reduce((sum, [from, to]) => sum + Math.max(to - from, 1), 0);
  const pad = 14;
  const room = Math.max(width - (merged.length - 1) * FOLD - 2 * pad, 60 * merged.length);
  let x = pad;
  const pieces = merged.flatMap(([from, to], number) => {
    const size = Math.max(room * Math.max(to - from, 1) / busy, merged.length > 1 ? 40 : 1);
    const piece = { from, to, x, size, folded: false };
    x += size;
    const next = merged[number + 1];
    if (!next) return [piece];
    const gap = { from: to, to: next[0], x, size: FOLD, folded: true };
    x += FOLD;
    return [piece, gap];
  });
  const at = (time) => {
    const piece = pieces.find((each) => time <= each.to) ?? pieces.at(-1);
    const part = piece.to === piece.from ? 0 : Math.min(1, Math.max(0, (time - piece.from) / (piece.to - piece.from)));
    return piece.x + part * piece.size;
  };
  const perPixel = busy / room;
  const time = (x) => {
    const { from, to, x: left, size } = pieces.find((each) => x <= each.x + each.size) ?? pieces.at(-1);
    return from + Math.min(1, Math.max(0, (x - left) / size)) * (to - from);
  };
  return { pieces, width: x + pad, x: at, time, step: STEPS.find((step) => step / perPixel >= 90) ?? STEPS.at(-1) };
}
const STEPS = [10, 50, 100, 250, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_800_000, 3_600_000, 7_200_000,
  21_600_000, 86_400_000];

export const CALLS = ["tool_call", "tool_result", "tool_error"];
/** What a person asks of a whole log: what went wrong, which calls never ended, what took longest, and the time by tool. */
export function summaryOf(rows) {
  const calls = rows.filter((row) => row.took !== null && CALLS.includes(row.type));
  const tools = new Map();
  for (const row of calls) {
    const tool = tools.get(row.title) ?? { title: row.title, icon: row.icon, kind: row.kind, calls: 0, failed: 0, took: 0 };
    tools.set(row.title, { ...tool, calls: tool.calls + 1, failed: tool.failed + (row.state === "error"), took: tool.took + row.took });
  }
  return {
    wrong: rows.filter((row) => row.state === "error").reverse(),
    unended: rows.filter((row) => row.state === "cancelled" && CALLS.includes(row.type)).reverse(),
    longest: [...calls].sort((a, b) => b.took - a.took),
    tools: [...tools.values()].sort((a, b) => b.took - a.took),
  };
}
