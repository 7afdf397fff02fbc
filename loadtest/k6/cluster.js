// More requests than a limit allows that several nodes share (BASE_URL names them with commas
// between), RATE a second of all nodes: LIMIT of the window are admitted, whichever node was asked,
// with SLACK more at most and a tenth less at most. SLACK is what comes within 150 ms: so long it may
// take until all nodes hear of an admission. Needs a key that has not been used for a whole window.
import http from 'k6/http';
import { Counter } from 'k6/metrics';
import { chat, keeps, settings, whole } from './lib.js';

const admitted = new Counter('admitted');
const refused = new Counter('refused');
const rate = Number(__ENV.RATE || Math.ceil(settings.requests / 10));
const slack = Number(__ENV.SLACK || Math.ceil(rate * 0.15));

// A refusal is an expected answer here, anything else that is not 200 is a failure.
http.setResponseCallback(http.expectedStatuses(200, 429));

export const options = {
  scenarios: {
    burst: {
      executor: 'constant-arrival-rate',
      rate,
      timeUnit: '1s',
      duration: `${Math.ceil(settings.requests / rate)}s`,
      preAllocatedVUs: 16,
      maxVUs: 64,
    },
  },
  thresholds: {
    admitted: [`count<=${settings.limit + slack}`, `count>=${Math.floor(settings.limit * 0.9)}`],
    promises_broken: ['rate==0'],
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
  },
};

export default function () {
  const response = chat('hello', false);
  if (response.status === 429) {
    refused.add(1);
  } else if (keeps(response, whole)) {
    admitted.add(1);
  }
}
