// What the scenarios share: settings from the environment, requests, and the promises of an answer.
import http from 'k6/http';
import { check } from 'k6';
import { Rate } from 'k6/metrics';

export const settings = {
  // One node, or several with commas between them, which are asked in turn.
  bases: (__ENV.BASE_URL || 'http://127.0.0.1:8080').split(','),
  key: __ENV.API_KEY || '',
  model: __ENV.MODEL || 'gpt-4o-mini',
  seconds: Number(__ENV.SECONDS || 10),
  rate: Number(__ENV.RATE || 200),
  streams: Number(__ENV.STREAMS || 50),
  tokens: Number(__ENV.TOKENS || 20),
  tokenMs: Number(__ENV.TOKEN_MS || 5),
  limit: Number(__ENV.LIMIT || 50),
  requests: Number(__ENV.REQUESTS || 200),
};

// Share of requests that broke a promise: the threshold of every scenario is zero.
export const broken = new Rate('promises_broken');

// About 1 KiB of prompt.
export const filler = 'Tell me something about the sea, in plain words and not too long. '.repeat(14);

/**
 * Sends a chat completion.
 * @param {string} text the user's message
 * @param {boolean} stream
 */
export function chat(text, stream) {
  /** @type {Record<string, string>} */
  const headers = { 'Content-Type': 'application/json' };
  if (settings.key) {
    headers.Authorization = `Bearer ${settings.key}`;
  }
  const body = { model: settings.model, stream, messages: [{ role: 'user', content: text }] };
  const base = settings.bases[(__VU + __ITER) % settings.bases.length];
  return http.post(`${base}/v1/chat/completions`, JSON.stringify(body), { headers, timeout: '30s' });
}

/**
 * Checks promises and counts the answer as broken when one is not kept.
 * @param {import('k6/http').RefinedResponse<any>} response
 * @param {Record<string, (r: any) => boolean>} promises
 */
export function keeps(response, promises) {
  /** @type {Record<string, (r: any) => boolean>} */
  const guarded = {};
  for (const [name, promise] of Object.entries(promises)) {
    guarded[name] = (/** @type {any} */ r) => {
      try {
        return promise(r);
      } catch (_) {
        return false; // an answer of another form keeps no promise
      }
    };
  }
  const kept = check(response, guarded);
  broken.add(!kept);
  return kept;
}

/**
 * The JSON of a body, or null.
 * @param {import('k6/http').RefinedResponse<any>} response
 */
export function json(response) {
  try {
    return JSON.parse(String(response.body));
  } catch (_) {
    return null;
  }
}

/**
 * Promises of a whole answer.
 * @type {Record<string, (r: any) => boolean>}
 */
export const whole = {
  'status is 200': (r) => r.status === 200,
  'has text': (r) => {
    const body = json(r);
    return Boolean(body && body.choices && body.choices[0].message.content);
  },
  'has usage': (r) => {
    const body = json(r);
    return Boolean(body && body.usage && body.usage.completion_tokens > 0);
  },
};
