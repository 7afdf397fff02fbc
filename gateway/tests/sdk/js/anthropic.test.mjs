// The official Anthropic SDK through tyr: nothing but baseURL and key is changed.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { countingFetch, eventually, startStack } from "./stack.mjs";

const model = "claude-haiku-4-5";
const user = (content) => [{ role: "user", content }];

let stack;
beforeEach(async () => {
  stack = await startStack();
});
afterEach(() => stack.end());

const withKey = (apiKey, options = {}) => new Anthropic({ baseURL: stack.tyr, apiKey, ...options });
const ask = (client, text, more = {}) => client.messages.create({ model, max_tokens: 100, messages: user(text), ...more });

/** The record that `action` leaves; there must be one. */
async function recordOf(action) {
  const earlier = (await stack.records()).length;
  await action();
  const records = await eventually("a record", async () => {
    const now = await stack.records();
    return now.length > earlier && now;
  });
  assert.equal(records.length, earlier + 1);
  return records.at(-1);
}

test("messages, unary", async () => {
  const record = await recordOf(async () => {
    const { data, response } = await ask(withKey(stack.key), "hello [[mock tokens=5]]").withResponse();
    assert.ok(data.content[0].text);
    assert.equal(data._request_id, response.headers.get("request-id"));
  });
  assert.equal(record.output_tokens, 5);
});

test("messages, streamed", async () => {
  const record = await recordOf(async () => {
    const stream = withKey(stack.key).messages.stream({ model, max_tokens: 100, messages: user("[[mock tokens=7]]") });
    const final = await stream.finalMessage();
    assert.equal(final.usage.output_tokens, 7);
  });
  assert.equal(record.output_tokens, 7);
});

test("tools", async () => {
  const tools = [{ name: "weather", input_schema: { type: "object", properties: { city: { type: "string" } } } }];
  const question = user(`[[mock tool=weather args='{"city":"Oslo"}']]`);
  const stream = withKey(stack.key).messages.stream({ model, max_tokens: 100, tools, messages: question });
  const answer = await stream.finalMessage();
  const call = answer.content.find((block) => block.type === "tool_use");
  assert.deepEqual(call.input, { city: "Oslo" });
  const result = [{ type: "tool_result", tool_use_id: call.id, content: "rain" }];
  const final = await withKey(stack.key).messages.create({
    model,
    max_tokens: 100,
    tools,
    messages: [...question, { role: "assistant", content: answer.content }, { role: "user", content: result }],
  });
  assert.equal(final.stop_reason, "end_turn");
});

test("count_tokens and models", async () => {
  const client = withKey(stack.key);
  assert.ok((await client.messages.countTokens({ model, messages: user("hello") })).input_tokens > 0);
  const names = (await Array.fromAsync(client.models.list())).map((one) => one.id);
  assert.ok(names.includes(model));
});

test("errors have their classes", async () => {
  const once = { maxRetries: 0 };
  await assert.rejects(ask(withKey("sk-tyr-nobody-000000000000", once), "x"), (error) => {
    assert.ok(error instanceof Anthropic.AuthenticationError);
    assert.equal(error.error.error.type, "authentication_error");
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(ask(withKey(stack.narrowKey, once), "x"), Anthropic.PermissionDeniedError);
  await assert.rejects(ask(withKey(stack.key, once), "x", { model: "claude-nothing" }), Anthropic.NotFoundError);
  await assert.rejects(ask(withKey(stack.key, once), "x", { model: undefined }), Anthropic.BadRequestError);
  await ask(withKey(stack.limitedKey, once), "x");
  await assert.rejects(ask(withKey(stack.limitedKey, once), "x"), Anthropic.RateLimitError);
  await assert.rejects(ask(withKey(stack.key, once), "[[mock status=500]]"), Anthropic.InternalServerError);
});

test("a spent budget is asked once", async () => {
  const fetch = countingFetch();
  await assert.rejects(ask(withKey(stack.spentKey, { fetch }), "x"), (error) => {
    assert.equal(error.status, 402);
    assert.equal(error.error.error.type, "billing_error");
    return true;
  });
  assert.equal(fetch.count, 1);
});

test("a lost stream throws", async () => {
  const record = await recordOf(async () => {
    const stream = await ask(withKey(stack.key), "[[mock tokens=20 cut_after=4]]", { stream: true });
    await assert.rejects(Array.fromAsync(stream), Anthropic.APIError);
  });
  assert.equal(record.end_reason, "upstream_error");
});

test("a cancelled stream leaves one record", async () => {
  const record = await recordOf(async () => {
    const stream = await ask(withKey(stack.key), "[[mock tokens=1000 token_ms=20]]", { stream: true, max_tokens: 10000 });
    let seen = 0;
    for await (const event of stream) {
      assert.ok(event);
      if (++seen === 6) break;
    }
  });
  assert.equal(record.end_reason, "client_gone");
  assert.ok(record.output_tokens > 0 && record.output_tokens < 100);
});
