/* A map of the whole session, a thin lane an agent: a click goes there, a pull chooses a time. */
import { clock, el } from "../dom.js";
import * as Model from "../model.js";
import { route, turn } from "../route.js";
import { agentsIn } from "./who.js";

const LINE = 7, LANES = 7;

export class Minimap {
  constructor(session, place, jump) {
    Object.assign(this, { session, place, jump, drawn: "", seen: [] });
    this.canvas = el("canvas", "");
    place.replaceChildren(this.canvas);
    this.canvas.setAttribute("aria-label", "Map of the session: click to go there, pull to choose a time");
    this.canvas.setAttribute("role", "img");
    this.sight = new ResizeObserver(() => this.draw());
    this.sight.observe(place);
    const x = (event) => event.clientX - this.canvas.getBoundingClientRect().left;
    this.canvas.onpointerdown = (event) => { this.from = x(event); this.canvas.setPointerCapture(event.pointerId); };
    this.canvas.onpointermove = (event) => { if (this.from !== null && this.from !== undefined) { this.to = x(event); this.paint(); } };
    this.canvas.onpointerup = (event) => {
      const ends = [this.from, x(event)].sort((a, b) => a - b);
      this.from = this.to = null;
      if (!this.scale) return;
      const [from, to] = ends.map((each) => Math.round(this.scale.time(each)));
      if (ends[1] - ends[0] < 5) this.jump(to); else turn({ span: `${from}-${to}` });
      this.paint();
    };
  }
  leave() { this.sight.disconnect(); }
  see(times) { this.seen = times; this.paint(); }
  draw() {
    const { session } = this, lanes = session.lanes ??= Model.lanesOf(session.rows.filter((row) => !row.minor), agentsIn(session), clock.now());
    const wide = this.place.clientWidth, marks = lanes.flatMap((lane, line) => lane.marks.map((mark) => ({ ...mark, line: Math.min(line, LANES - 1) })));
    this.place.hidden = marks.length < 2;
    const key = [wide, session.log.events.length, session.log.events.at(-1)?.cursor, document.documentElement.dataset.theme].join();
    if (!wide || key === this.drawn) { this.paint(); return; }
    Object.assign(this, { drawn: key, wide, tall: Math.min(LANES, lanes.length) * LINE + 8, scale: Model.scaleOf(marks, { width: wide }), base: el("canvas", "") });
    this.drawMarks(this.penOf(this.base), marks);
    this.paint();
  }
  penOf(canvas) {
    const dense = devicePixelRatio || 1;
    Object.assign(canvas, { width: this.wide * dense, height: this.tall * dense });
    const pen = canvas.getContext("2d");
    pen.scale(dense, dense);
    return pen;
  }
  colour(name) { this.canvas.style.color = `var(--${name})`; return getComputedStyle(this.canvas).color; }
  drawMarks(pen, marks) {
    const { scale, tall } = this, colours = Object.fromEntries(["raised", "bad", "quiet", ...Object.values(KINDS)].map((name) => [name, this.colour(name)]));
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
    const pen = this.penOf(canvas), span = (route.query.span ?? "").split("-").map(Number);
    canvas.style.height = `${tall}px`;
    pen.drawImage(this.base, 0, 0, wide, tall);
    const band = (ends, name, alpha) => { pen.fillStyle = this.colour(name); pen.globalAlpha = alpha; pen.fillRect(Math.min(...ends), 0, Math.max(2, Math.abs(ends[1] - ends[0])), tall); };
    if (span.length === 2) band(span.map(scale.x), "accent", .25);
    if (this.to) band([this.from, this.to], "accent", .35);
    if (seen.length === 2) band(seen.map(scale.x), "text", .14);
  }
}
const KINDS = { __proto__: null, prompt: "accent", answer: "say", says: "say", tool: "tool", edit: "edit", agent: "agent", wait: "wait", goal: "good" };
