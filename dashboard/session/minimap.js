/* A map of the whole session, a thin lane an agent: a click goes there, a pull chooses a time. */
import { clock, el } from "../dom.js";
import { lanesOf, scaleOf } from "../model/timeline.js";
import { route, turn } from "../route.js";
import { agentsIn } from "./who.js";

const LINE = 7, LANES = 7;
const KINDS = { prompt: "accent", answer: "say", says: "say", tool: "tool", edit: "edit", agent: "agent", wait: "wait", goal: "good" };
export const lanesIn = (session) => session.lanes ??= lanesOf(session.rows.filter((row) => !row.minor), agentsIn(session), clock.now());
export const spanIn = () => (route.query.span ?? "").split("-").map(Number);

export class Minimap {
  constructor(session, place, jump) {
    const canvas = Object.assign(el("canvas"), { ariaLabel: "Map of the session: click to go there, pull to choose a time", role: "img" }), x = (event) => event.clientX - canvas.getBoundingClientRect().left;
    Object.assign(this, { session, place, canvas, drawn: "", seen: [], from: null, sight: new ResizeObserver(() => this.draw()) });
    place.replaceChildren(canvas);
    this.sight.observe(place);
    canvas.onpointerdown = (event) => { this.from = x(event); canvas.setPointerCapture(event.pointerId); };
    canvas.onpointermove = (event) => { if (this.from !== null) { this.to = x(event); this.paint(); } };
    canvas.onpointerup = (event) => {
      const ends = [this.from, x(event)].sort((a, b) => a - b), [from, to] = ends.map((each) => Math.round(this.scale?.time(each)));
      this.from = this.to = null;
      if (!this.scale) return;
      if (ends[1] - ends[0] < 5) jump(to); else turn({ span: `${from}-${to}` });
      this.paint();
    };
  }
  leave() { this.sight.disconnect(); }
  see(times) { this.seen = times; this.paint(); }
  draw() {
    const { session: { log }, place, session } = this, lanes = lanesIn(session), wide = place.clientWidth, marks = lanes.flatMap((lane, line) => lane.marks.map((mark) => ({ ...mark, line: Math.min(line, LANES - 1) })));
    place.hidden = marks.length < 2;
    const key = [wide, log.events.length, log.events.at(-1)?.cursor, this.colour("text")].join();
    if (wide && key !== this.drawn) {
      Object.assign(this, { drawn: key, wide, tall: Math.min(LANES, lanes.length) * LINE + 8, scale: scaleOf(marks, { width: wide }), base: el("canvas") });
      this.drawMarks(this.penOf(this.base), marks);
    }
    this.paint();
  }
  penOf(canvas) {
    const dense = devicePixelRatio || 1;
    Object.assign(canvas, { width: this.wide * dense, height: this.tall * dense });
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    return pen;
  }
  colour(name) { this.canvas.style.color = `var(--${name})`; return [name, getComputedStyle(this.canvas).color]; }
  drawMarks(pen, marks) {
    const { scale, tall } = this, colours = this.colours = Object.fromEntries(["raised", "bad", "quiet", "text", ...Object.values(KINDS)].map((name) => this.colour(name)));
    pen.fillStyle = colours.raised;
    for (const piece of scale.pieces) if (piece.folded) pen.fillRect(piece.x, 0, piece.size, tall);
    for (const isBad of [false, true]) for (const mark of marks) {
      if ((mark.state === "error" || mark.kind === "error") !== isBad) continue;
      const x = scale.x(mark.from);
      pen.fillStyle = isBad ? colours.bad : colours[KINDS[mark.kind] ?? "quiet"];
      pen.fillRect(x, 4 + mark.line * LINE, Math.max(isBad ? 3 : 2, scale.x(mark.to) - x), LINE - 2);
    }
  }
  /** The marks, and over them what was chosen, what is being chosen and what is seen. */
  paint() {
    const { canvas, wide, tall, scale, seen } = this;
    if (!scale) return;
    const pen = this.penOf(canvas), span = spanIn();
    canvas.style.height = `${tall}px`;
    pen.drawImage(this.base, 0, 0, wide, tall);
    const band = ([a, b], name, alpha) => { Object.assign(pen, { fillStyle: this.colours[name], globalAlpha: alpha }); pen.fillRect(Math.min(a, b), 0, Math.max(2, Math.abs(b - a)), tall); };
    if (span.length === 2) band(span.map(scale.x), "accent", .25);
    if (this.to) band([this.from, this.to], "accent", .35);
    if (seen.length === 2) band(seen.map(scale.x), "text", .14);
  }
}
