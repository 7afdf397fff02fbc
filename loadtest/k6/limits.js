// A burst over a request limit, on one node: exactly LIMIT requests of the window are admitted, and
// every refusal says when to return. Needs a key that has not been used for a whole window.
import http from 'k6/http';
import { Counter } from 'k6/metrics';
import { chat, json, keeps, settings, whole } from './lib.js';

const admitted = new Counter('admitted');
const refused = new Counter('refused');

// A refusal is an expected answer here, anything else that is not 200 is a failure.
http.setResponseCallback(http.expectedStatuses(200, 429));

export const options = {
  scenarios: {
    burst: {
      executor: 'shared-iterations',
      vus: 32,
      iterations: settings.requests,
      maxDuration: '30s',
    },
  },
  thresholds: {
    admitted: [`count==${Math.min(settings.limit, settings.requests)}`],
    promises_broken: ['rate==0'],
    http_req_failed: ['rate==0'],
    checks: ['rate==1'],
  },
};

/** @type {Record<string, (r: any) => boolean>} */
const refusal = {
  'retry-after is present': (r) => Number(r.headers['Retry-After']) > 0,
  'has an error message': (r) => {
    const body = json(r);
    return Boolean(body && body.error && body.error.message);
  },
};

export default function () {
  const response = chat('hello', false);
  if (response.status === 429) {
    refused.add(1);
    keeps(response, refusal);
  } else if (keeps(response, whole)) {
    admitted.add(1);
  }
}
