// Whole answers at a fixed rate: no errors, every answer complete, usage present.
import { chat, filler, keeps, settings, whole } from './lib.js';

export const options = {
  scenarios: {
    unary: {
      executor: 'constant-arrival-rate',
      rate: settings.rate,
      timeUnit: '1s',
      duration: `${settings.seconds}s`,
      preAllocatedVUs: 64,
      maxVUs: 256,
    },
  },
  thresholds: {
    promises_broken: ['rate==0'],
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
    dropped_iterations: ['count==0'],
  },
  summaryTrendStats: ['min', 'med', 'p(99)', 'p(99.9)', 'max'],
};

export default function () {
  keeps(chat(filler, false), whole);
}
