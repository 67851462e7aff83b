/* Spans of time: what the address says of one, the one before it, and a number for each of its steps. */
const DAY = 86_400_000;
const SPANS = { __proto__: null, hour: 3_600_000, day: DAY, week: 7 * DAY, month: 30 * DAY };
const BARS = [60, 300, 900, 3600, 10_800, 86_400, 604_800];
/** What the address says of a span as the times of its ends, "" for none, and the seconds of one of about 60 bars. Days
    are those of UTC, as all that the queries group by is. */
export function spanOf({ range = "day", from = "", to = "" }, now) {
  const ends = range === "from" ? [Date.parse(from), Date.parse(to)] : range === "days" ? [Date.parse(from), Date.parse(to) + DAY] : [now - SPANS[range], NaN];
  const said = (when) => Number.isFinite(when) ? new Date(when).toISOString() : "";
  const seconds = ((Number.isFinite(ends[1]) ? ends[1] : now) - ends[0]) / 1000;
  const step = Number.isFinite(seconds) ? BARS.find((bar) => bar * 62 >= seconds) ?? BARS.at(-1) : 86_400;
  return { from: said(ends[0]), to: said(ends[1]), step };
}
/** A span as long, right before that; null before everything. */
export function spanBefore({ from, to, step }, now) {
  if (!from) return null;
  const begin = Date.parse(from), long = (to ? Date.parse(to) : now) - begin;
  return { from: new Date(begin - long).toISOString(), to: from, step };
}
/** A number for each step of the span, 0 where nothing happened, oldest first; at most the newest 400. */
export function seriesOf(rows, { from, to, step }, now, name) {
  const place = (time) => Math.floor(Date.parse(time) / 1000 / step);
  const numbers = new Map(rows.map((row) => [place(row.at), row[name]]));
  const last = to ? place(to) - (Date.parse(to) / 1000 % step ? 0 : 1) : Math.floor(now / 1000 / step);
  const begin = Math.max(last - 399, from ? place(from) : Math.min(last, ...numbers.keys()));
  return Array.from({ length: Math.max(0, last - begin + 1) },
    (_, i) => ({ at: (begin + i) * step * 1000, number: numbers.get(begin + i) ?? 0 }));
}
