/* A windowed list: however long it is, only the rows in sight are in the document. */
import { offsetsOf, rowAt } from "./model.js";

/** What one looks at stays where it is while rows come. Where it is scrolled to is noted when that changes, for to ask
    costs a layout of the whole page. */
export class LongList {
  constructor(list, { key = (item) => item.key, height, create, update, sticks = "", near = () => {} }) {
    const scroller = list.parentElement;
    Object.assign(this, { scroller, list, key, height, create, update, sticks, near, items: [], offsets: new Float64Array(1), rows: new Map(), top: 0, tall: 0, wide: 0 });
    scroller.addEventListener("scroll", () => { this.top = scroller.scrollTop; this.draw(); }, { passive: true });
    new ResizeObserver(() => this.measure()).observe(scroller);
  }
  measure() {
    const { clientWidth: wide, clientHeight: tall, scrollTop: top } = this.scroller, isOther = wide !== this.wide;
    Object.assign(this, { wide, tall, top });
    if (isOther) this.set(this.items); else this.draw();
  }
  get total() { return this.offsets[this.items.length]; }
  isAtEnd() { return this.top + this.tall >= this.total - 6; }
  to(y) {
    const top = Math.max(0, Math.min(y, this.total - this.tall));
    if (Math.abs(top - this.top) < 0.5) return;
    this.scroller.scrollTop = top;
    this.top = top;
  }
  set(items) {
    const stays = this.sticks === "top" ? this.top < 6 : this.sticks === "bottom" && this.isAtEnd();
    const anchor = !stays && this.items.length ? rowAt(this.offsets, this.top) : -1;
    const [anchorKey, lead] = anchor < 0 ? [] : [this.key(this.items[anchor]), this.top - this.offsets[anchor]];
    this.items = items;
    this.offsets = offsetsOf(items, this.height);
    const tall = items.length ? `${this.total}px` : "";
    if (this.list.style.height !== tall) this.list.style.height = tall;
    const place = anchor < 0 ? -1 : items.findIndex((item) => this.key(item) === anchorKey);
    if (stays) this.to(this.sticks === "top" ? 0 : this.total);
    else if (place >= 0) this.to(this.offsets[place] + lead);
    this.draw();
  }
  draw() {
    if (!this.tall) return;
    const firstRow = Math.max(0, rowAt(this.offsets, this.top) - 6);
    const lastRow = this.items.length ? Math.min(this.items.length - 1, rowAt(this.offsets, this.top + this.tall) + 6) : -1;
    const shown = this.items.slice(firstRow, lastRow + 1), keys = new Set(shown.map(this.key));
    for (const [key, row] of this.rows) if (!keys.has(key)) { row.remove(); this.rows.delete(key); }
    let next = this.list.firstElementChild;
    shown.forEach((item, number) => {
      const key = this.key(item), row = this.rows.get(key) ?? this.create(item);
      this.rows.set(key, row);
      if (row === next) next = row.nextElementSibling; else this.list.insertBefore(row, next);
      this.place(row, firstRow + number);
      this.update(row, item, firstRow + number);
    });
    if (this.items.length) this.near(this.top < 400, this.top + this.tall > this.total - 400);
  }
  place(row, number) {
    if (row.dataset.top !== String(this.offsets[number])) {
      row.dataset.top = this.offsets[number];
      row.style.transform = `translateY(${this.offsets[number]}px)`;
    }
    row.style.height = `${this.offsets[number + 1] - this.offsets[number]}px`;
    Object.assign(row, { ariaPosInSet: number + 1, ariaSetSize: this.items.length });
  }
  reveal(number, where = "nearest") {
    const [top, bottom] = [this.offsets[number], this.offsets[number + 1]];
    if (where === "middle") this.to(top - this.tall / 3);
    else if (top < this.top) this.to(top);
    else if (bottom > this.top + this.tall) this.to(bottom - this.tall);
    this.draw();
  }
  move(by) {
    const focused = [...this.rows].find(([, row]) => row.contains(document.activeElement))?.[0];
    const from = focused === undefined ? (by > 0 ? rowAt(this.offsets, this.top) - 1 : this.items.length)
      : this.items.findIndex((item) => this.key(item) === focused);
    const number = Math.min(this.items.length - 1, Math.max(0, from + by));
    if (!this.items[number]) return;
    this.reveal(number);
    this.rows.get(this.key(this.items[number]))?.querySelector("a, button")?.focus({ preventScroll: true });
  }
}
