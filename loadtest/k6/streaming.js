// Streams side by side: every one whole, without a usage chunk nobody asked for, ended by [DONE].
// k6 hands over a stream when it has ended, so this checks completeness, not the pace of events.
import { chat, keeps, settings } from './lib.js';

export const options = {
  scenarios: {
    streaming: { executor: 'constant-vus', vus: settings.streams, duration: `${settings.seconds}s`, gracefulStop: '30s' },
  },
  thresholds: {
    promises_broken: ['rate==0'],
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
    iterations: ['count>0'],
  },
  summaryTrendStats: ['min', 'med', 'p(99)', 'p(99.9)', 'max'],
};

/**
 * The payloads of the `data:` lines.
 * @param {any} response
 * @returns {string[]}
 */
function payloads(response) {
  return String(response.body)
    .split('\n')
    .filter((line) => line.startsWith('data: '))
    .map((line) => line.slice('data: '.length).trim());
}

/** @param {any} response */
function chunks(response) {
  return payloads(response)
    .filter((data) => data !== '[DONE]')
    .map((data) => JSON.parse(data));
}

/** @type {Record<string, (r: any) => boolean>} */
const promises = {
  'status is 200': (r) => r.status === 200,
  'is an event stream': (r) => String(r.headers['Content-Type']).startsWith('text/event-stream'),
  'ends in [DONE]': (r) => payloads(r).pop() === '[DONE]',
  'holds every token': (r) =>
    chunks(r).filter((c) => c.choices.length > 0 && c.choices[0].delta.content).length === settings.tokens,
  'has no usage chunk nobody asked for': (r) => chunks(r).every((c) => c.choices.length > 0),
};

export default function () {
  keeps(chat(`[[mock tokens=${settings.tokens} token_ms=${settings.tokenMs}]]`, true), promises);
}
