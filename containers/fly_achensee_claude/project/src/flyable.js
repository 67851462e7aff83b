/** Whether a tandem may start, from a wind reading in km/h: {flyable, reason}. */

const MOST_WIND = 25;

export function flyable({ wind }) {
  if (!Number.isFinite(wind)) return { flyable: false, reason: 'there is no wind reading' };
  if (wind > MOST_WIND) return { flyable: false, reason: `the wind has ${wind} km/h` };
  return { flyable: true, reason: 'the wind is calm enough' };
}
