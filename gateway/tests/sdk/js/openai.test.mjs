// The official openai SDK through tyr: nothing but baseURL and key is changed.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import OpenAI from "openai";

import { countingFetch, eventually, startStack } from "./stack.mjs";

const model = "gpt-4o-mini";
const user = (content) => [{ role: "user", content }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

let stack;
beforeEach(async () => {
  stack = await startStack();
});
afterEach(() => stack.end());

const withKey = (apiKey, options = {}) => new OpenAI({ baseURL: `${stack.tyr}/v1`, apiKey, ...options });
const client = () => withKey(stack.key);

/** The records that `action` leaves; there must be `count` of them. */
async function recordsOf(count, action) {
  const earlier = (await stack.records()).length;
  await action();
  const records = await eventually(`${count} records`, async () => {
    const now = await stack.records();
    return now.length >= earlier + count && now;
  });
  assert.equal(records.length, earlier + count);
  return records.slice(earlier);
}

test("chat, unary", async () => {
  const [record] = await recordsOf(1, async () => {
    const { data, response } = await client()
      .chat.completions.create({ model, messages: user("hello [[mock tokens=5]]") })
      .withResponse();
    assert.ok(data.choices[0].message.content);
    assert.equal(data.usage.completion_tokens, 5);
    assert.equal(data._request_id, response.headers.get("x-request-id"));
  });
  assert.equal(record.output_tokens, 5);
});

test("chat, streamed", async () => {
  const [record] = await recordsOf(1, async () => {
    const stream = await client().chat.completions.create({ model, stream: true, messages: user("[[mock tokens=7]]") });
    const chunks = await Array.fromAsync(stream);
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1), "the usage chunk was not asked for");
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  });
  assert.equal(record.output_tokens, 7);
});

test("chat, tools in a stream", async () => {
  const tools = [{ type: "function", function: { name: "weather", parameters } }];
  const runner = client().chat.completions.stream({
    model,
    tools,
    messages: user(`[[mock tool=weather args='{"city":"Oslo"}']]`),
  });
  const final = await runner.finalChatCompletion();
  const [call] = final.choices[0].message.tool_calls;
  assert.equal(call.function.name, "weather");
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Oslo" });
});

test("completions, embeddings, models", async () => {
  const completion = await client().completions.create({ model: "gpt-3.5-turbo-instruct", prompt: "[[mock tokens=4]]" });
  assert.equal(completion.usage.completion_tokens, 4);
  const embedding = await client().embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] });
  assert.equal(embedding.data.length, 2);
  assert.equal(typeof embedding.data[0].embedding[0], "number");
  const names = (await Array.fromAsync(client().models.list())).map((one) => one.id);
  assert.ok(names.includes(model));
  assert.equal((await client().models.retrieve(model)).id, model);
});

test("responses, unary and streamed", async () => {
  const answer = await client().responses.create({ model, input: "[[mock tokens=6]]" });
  assert.ok(answer.output_text);
  assert.equal(answer.usage.output_tokens, 6);
  const stream = await client().responses.create({ model, input: "[[mock tokens=6]]", stream: true });
  const events = await Array.fromAsync(stream);
  assert.equal(events[0].type, "response.created");
  assert.equal(events.at(-1).type, "response.completed");
});

test("errors have their classes", async () => {
  const ask = (key, body = {}) =>
    withKey(key, { maxRetries: 0 }).chat.completions.create({ model, messages: user("x"), ...body });
  await assert.rejects(ask("sk-tyr-nobody-000000000000"), (error) => {
    assert.ok(error instanceof OpenAI.AuthenticationError);
    assert.equal(error.code, "invalid_api_key");
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(ask(stack.narrowKey, { model: "gpt-5-codex" }), OpenAI.PermissionDeniedError);
  await assert.rejects(ask(stack.key, { model: "gpt-nothing" }), OpenAI.NotFoundError);
  await assert.rejects(ask(stack.key, { model: undefined }), OpenAI.BadRequestError);
  await ask(stack.limitedKey);
  await assert.rejects(ask(stack.limitedKey), OpenAI.RateLimitError);
  await assert.rejects(ask(stack.key, { messages: user("[[mock status=500]]") }), OpenAI.InternalServerError);
});

test("a spent budget is asked once", async () => {
  const fetch = countingFetch();
  await assert.rejects(
    withKey(stack.spentKey, { fetch }).chat.completions.create({ model, messages: user("x") }),
    (error) => error instanceof OpenAI.RateLimitError && error.code === "insufficient_quota",
  );
  assert.equal(fetch.count, 1);
});

test("retry headers of the provider pass", async () => {
  const fetch = countingFetch();
  const retrying = withKey(stack.key, { fetch });
  const started = Date.now();
  await retrying.chat.completions.create({ model, messages: user("[[mock status=429 retry_after_ms=50 retry_after=1 times=2 id=js]]") });
  assert.equal(fetch.count, 3);
  assert.ok(Date.now() - started < 900, "milliseconds were obeyed");
  await assert.rejects(
    retrying.chat.completions.create({ model, messages: user("[[mock status=429 should_retry=false]]") }),
    OpenAI.RateLimitError,
  );
  assert.equal(fetch.count, 4);
});

test("a lost stream throws", async () => {
  const [record] = await recordsOf(1, async () => {
    const stream = await client().chat.completions.create({
      model,
      stream: true,
      messages: user("[[mock tokens=20 cut_after=3]]"),
    });
    await assert.rejects(Array.fromAsync(stream), OpenAI.APIError);
  });
  assert.equal(record.end_reason, "upstream_error");
});

test("a cancelled stream leaves one record", async () => {
  const [record] = await recordsOf(1, async () => {
    const stream = await client().chat.completions.create({
      model,
      stream: true,
      messages: user("[[mock tokens=1000 token_ms=20]]"),
    });
    let seen = 0;
    for await (const chunk of stream) {
      assert.ok(chunk);
      if (++seen === 5) break;
    }
  });
  assert.equal(record.end_reason, "client_gone");
  assert.ok(record.output_tokens > 0 && record.output_tokens < 100);
});
