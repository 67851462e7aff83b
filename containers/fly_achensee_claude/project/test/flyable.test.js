import assert from 'node:assert/strict';
import { test } from 'node:test';
import { flyable } from '../src/flyable.js';

test('a calm day is a flying day', () => {
  assert.equal(flyable({ wind: 8, gusts: 14 }).flyable, true);
});

test('too much wind is said with its number', () => {
  assert.deepEqual(flyable({ wind: 31, gusts: 35 }), { flyable: false, reason: 'the wind has 31 km/h' });
});

test('without a reading nobody goes up', () => {
  assert.equal(flyable({}).flyable, false);
});

test('gusts keep everybody down, though the mean wind is low', () => {
  assert.deepEqual(flyable({ wind: 12, gusts: 38 }), { flyable: false, reason: 'there are gusts of 38 km/h' });
});
