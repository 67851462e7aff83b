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
    Object.assign(this, { drawn: key, marks, wide, tall: Math.min(LANES, lanes.length) * LINE + 8, scale: Model.scaleOf(marks, { width: wide }) });
    this.paint();
  }
  paint() {
    const { canvas, marks, wide, tall, scale } = this, dense = devicePixelRatio || 1;
    if (!scale) return;
    Object.assign(canvas, { width: wide * dense, height: tall * dense });
    canvas.style.height = `${tall}px`;
    const pen = canvas.getContext("2d"), css = getComputedStyle(canvas), colour = (name) => css.getPropertyValue(`--${name}`);
    pen.scale(dense, dense);
    pen.fillStyle = colour("raised");
    for (const piece of scale.pieces) if (piece.folded) pen.fillRect(piece.x, 0, piece.size, tall);
    const band = (from, to, name, alpha) => { pen.fillStyle = colour(name); pen.globalAlpha = alpha; pen.fillRect(from, 0, Math.max(2, to - from), tall); pen.globalAlpha = 1; };
    for (const [isBad, names] of [[false, KINDS], [true, null]]) for (const mark of marks) {
      if ((mark.state === "error" || mark.kind === "error") !== isBad) continue;
      const x = scale.x(mark.from);
      pen.fillStyle = colour(names ? names[mark.kind] ?? "quiet" : "bad");
      pen.fillRect(x, 4 + mark.line * LINE, Math.max(isBad ? 3 : 2, scale.x(mark.to) - x), LINE - 2);
    }
    const span = (route.query.span ?? "").split("-").map(Number);
    if (span.length === 2) band(scale.x(span[0]), scale.x(span[1]), "accent", .25);
    if (this.to) band(Math.min(this.from, this.to), Math.max(this.from, this.to), "accent", .35);
    if (this.seen.length) band(scale.x(Math.min(...this.seen)), scale.x(Math.max(...this.seen)), "text", .14);
  }
}
const KINDS = { __proto__: null, prompt: "accent", answer: "say", says: "say", tool: "tool", edit: "edit", agent: "agent", wait: "wait", goal: "good" };
