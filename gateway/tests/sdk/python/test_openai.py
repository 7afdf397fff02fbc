"""The official openai SDK through tyr: nothing but base_url and key is changed."""

import asyncio
import base64
import struct

import httpx2
import openai
import pytest

from processes import KEY, LIMITED_KEY, NARROW_KEY, SPENT_KEY, eventually

MODEL = "gpt-4o-mini"
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a place",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def user(text):
    return [{"role": "user", "content": text}]


@pytest.fixture
def client(stack):
    with openai.OpenAI(base_url=f"{stack.tyr.url}/v1", api_key=KEY) as client:
        yield client


def with_key(stack, key, **options):
    return openai.OpenAI(base_url=f"{stack.tyr.url}/v1", api_key=key, **options)


def one_record(stack):
    records = eventually("a usage record", stack.tyr.records)
    assert len(records) == 1, records
    return records[0]


def test_chat(client, stack):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=user("hello [[mock tokens=5]]"))
    answer = raw.parse()
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 5
    assert answer._request_id == raw.headers["x-request-id"] == raw.headers["request-id"]
    record = one_record(stack)
    assert (record["output_tokens"], record["input_tokens"]) == (5, answer.usage.prompt_tokens)
    assert record["cost_nano_usd"] == answer.usage.prompt_tokens * 150 + 5 * 600


def test_chat_stream(client, stack):
    chunks = list(client.chat.completions.create(model=MODEL, stream=True, messages=user("[[mock tokens=7]]")))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text and chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices for chunk in chunks), "the usage chunk was not asked for"
    assert all(chunk.usage is None for chunk in chunks)
    assert one_record(stack)["output_tokens"] == 7


def test_chat_stream_with_usage(client):
    options = {"include_usage": True}
    stream = client.chat.completions.create(
        model=MODEL, stream=True, stream_options=options, messages=user("[[mock tokens=7 comments crlf]]")
    )
    chunks = list(stream)
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens == 7


def test_chat_stream_helper(client):
    with client.chat.completions.stream(model=MODEL, messages=user("[[mock tokens=7]]")) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and final.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_chat_tools(client, stream):
    directive = """[[mock tool=weather args='{"city":"Oslo"}' parallel=2]]"""
    messages = user(directive)
    if stream:
        with client.chat.completions.stream(model=MODEL, messages=messages, tools=[TOOL]) as events:
            for _ in events:
                pass
            message = events.get_final_completion().choices[0].message
    else:
        message = client.chat.completions.create(model=MODEL, messages=messages, tools=[TOOL]).choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["weather", "weather"]
    assert message.tool_calls[0].function.arguments.replace(" ", "") == '{"city":"Oslo"}'
    result = [{"role": "tool", "tool_call_id": call.id, "content": "rain"} for call in message.tool_calls]
    turn = {"role": "assistant", "tool_calls": [call.model_dump(exclude={"parsed_arguments"}) for call in message.tool_calls]}
    for call in turn["tool_calls"]:
        call["function"] = {k: call["function"][k] for k in ("name", "arguments")}
    final = client.chat.completions.create(model=MODEL, messages=[*messages, turn, *result], tools=[TOOL])
    assert final.choices[0].message.content


def test_completions(client, stack):
    model = "gpt-3.5-turbo-instruct"
    answer = client.completions.create(model=model, prompt="hello [[mock tokens=4]]")
    assert answer.choices[0].text and answer.usage.completion_tokens == 4
    chunks = list(client.completions.create(model=model, prompt="[[mock tokens=4]]", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices)
    records = eventually("two records", lambda: len(stack.tyr.records()) == 2 and stack.tyr.records())
    assert [record["output_tokens"] for record in records] == [4, 4]


def test_embeddings(client, stack):
    answer = client.embeddings.create(model="text-embedding-3-small", input=["a", "b", "c"])
    assert len(answer.data) == 3 and all(isinstance(one.embedding[0], float) for one in answer.data)
    raw = client.embeddings.create(model="text-embedding-3-small", input="a", encoding_format="base64")
    packed = base64.b64decode(raw.data[0].embedding)
    assert len(packed) % 4 == 0 and struct.unpack("<f", packed[:4])
    records = eventually("two records", lambda: len(stack.tyr.records()) == 2 and stack.tyr.records())
    assert records[0]["output_tokens"] == 0 and records[0]["input_tokens"] == answer.usage.prompt_tokens


def test_responses(client, stack):
    answer = client.responses.create(model=MODEL, input="hello [[mock tokens=6]]")
    assert answer.status == "completed" and answer.output_text
    assert answer.usage.output_tokens == 6
    record = one_record(stack)
    assert (record["output_tokens"], record["endpoint"]) == (6, "responses")


def test_responses_stream(client, stack):
    events = list(client.responses.create(model=MODEL, input="[[mock tokens=6]]", stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.completed"
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text
    assert one_record(stack)["output_tokens"] == 6


def test_responses_tools(client):
    tool = {"type": "function", "name": "weather", "parameters": TOOL["function"]["parameters"], "strict": False}
    question = user("""[[mock tool=weather args='{"city":"Oslo"}']]""")
    answer = client.responses.create(model=MODEL, input=question, tools=[tool])
    call = next(item for item in answer.output if item.type == "function_call")
    assert (call.name, call.arguments.replace(" ", "")) == ("weather", '{"city":"Oslo"}')
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    final = client.responses.create(model=MODEL, input=[*question, call.model_dump(), result], tools=[tool])
    assert final.output_text


def test_models(client, stack):
    names = [model.id for model in client.models.list()]
    assert MODEL in names and client.models.retrieve(MODEL).id == MODEL
    assert [model.id for model in with_key(stack, NARROW_KEY).models.list()] == [MODEL]
    with pytest.raises(openai.NotFoundError):
        with_key(stack, NARROW_KEY).models.retrieve("claude-haiku-4-5")


def test_prefixed_base_url(stack):
    client = openai.OpenAI(base_url=f"{stack.tyr.url}/openai/v1", api_key=KEY)
    assert client.chat.completions.create(model=MODEL, messages=user("hello")).choices


def test_large_request(client):
    answer = client.chat.completions.create(model=MODEL, messages=user("x" * 5_000_000))
    assert answer.usage.prompt_tokens == 1_250_000


def test_async(stack):
    async def run():
        async with openai.AsyncOpenAI(base_url=f"{stack.tyr.url}/v1", api_key=KEY) as client:
            async def one(number):
                stream = await client.chat.completions.create(
                    model=MODEL, stream=True, messages=user(f"[[mock tokens={number % 7 + 1} token_ms=5]]")
                )
                return [chunk async for chunk in stream]

            many = await asyncio.gather(*(one(number) for number in range(40)))
            unary = await client.chat.completions.create(model=MODEL, messages=user("hello"))
            models = [model.id async for model in client.models.list()]
            return many, unary, models

    many, unary, models = asyncio.run(run())
    assert all(chunks[-1].choices[0].finish_reason == "stop" for chunks in many)
    assert unary.choices and MODEL in models
    records = eventually("41 records", lambda: len(stack.tyr.records()) == 41 and stack.tyr.records())
    assert sum(record["output_tokens"] for record in records if record["stream"]) == sum(n % 7 + 1 for n in range(40))


def test_error_classes(stack):
    before = stack.mock.requests()
    with pytest.raises(openai.AuthenticationError) as error:
        with_key(stack, "sk-tyr-nobody-000000000000").chat.completions.create(model=MODEL, messages=user("x"))
    assert (error.value.code, error.value.type) == ("invalid_api_key", "invalid_request_error")
    assert error.value.request_id
    with pytest.raises(openai.PermissionDeniedError) as error:
        with_key(stack, NARROW_KEY).embeddings.create(model="text-embedding-3-small", input="x")
    assert error.value.code == "permission_denied"
    with pytest.raises(openai.NotFoundError) as error:
        with_key(stack, KEY).chat.completions.create(model="gpt-nothing", messages=user("x"))
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as error:
        with_key(stack, KEY).post("/chat/completions", body={"messages": []}, cast_to=object)
    assert error.value.param == "model" and error.value.body["message"]
    assert stack.mock.requests() == before


def test_rate_limit(stack):
    client = with_key(stack, LIMITED_KEY, max_retries=0)
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=user("x"))
    assert raw.headers["x-ratelimit-limit-requests"] == "1"
    assert raw.headers["x-ratelimit-remaining-requests"] == "0"
    with pytest.raises(openai.RateLimitError) as error:
        client.chat.completions.create(model=MODEL, messages=user("x"))
    assert error.value.code == "rate_limit_exceeded"
    assert "limited" in error.value.message
    headers = error.value.response.headers
    assert int(headers["retry-after"]) > 0 and headers["x-tyr-limit"].endswith("/requests/1h")


class Counting(httpx2.HTTPTransport):
    """Counts what the SDK really sends."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def handle_request(self, request):
        self.count += 1
        return super().handle_request(request)


def test_a_spent_budget_is_asked_once(stack):
    transport = Counting()
    client = with_key(stack, SPENT_KEY, http_client=httpx2.Client(transport=transport))
    with pytest.raises(openai.RateLimitError) as error:
        client.chat.completions.create(model=MODEL, messages=user("x"))
    assert error.value.code == "insufficient_quota"
    assert error.value.response.headers["x-should-retry"] == "false"
    assert (transport.count, stack.mock.requests()) == (1, 0), "the SDK asked once, the provider never"


def test_a_providers_limit_is_retried_after_its_milliseconds(stack):
    transport = Counting()
    client = with_key(stack, KEY, http_client=httpx2.Client(transport=transport))
    directive = "[[mock status=429 retry_after_ms=50 retry_after=1 times=2 id=ms]]"
    answer = client.chat.completions.create(model=MODEL, messages=user(directive))
    assert answer.choices and transport.count == 3
    records = eventually("three records", lambda: len(stack.tyr.records()) == 3 and stack.tyr.records())
    assert [record["status"] for record in records] == [429, 429, 200]
    waited = records[2]["started_at_ms"] - records[0]["started_at_ms"]
    assert waited < 900, f"retry-after-ms was passed on: {waited} ms for two retries"


def test_a_providers_word_not_to_retry_is_passed_on(stack):
    transport = Counting()
    client = with_key(stack, KEY, http_client=httpx2.Client(transport=transport))
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model=MODEL, messages=user("[[mock status=429 should_retry=false]]"))
    assert (transport.count, stack.mock.requests()) == (1, 1)


def test_upstream_errors(stack):
    client = with_key(stack, KEY, max_retries=0)
    with pytest.raises(openai.InternalServerError) as error:
        client.chat.completions.create(model=MODEL, messages=user("[[mock status=500]]"))
    assert (error.value.status_code, error.value.type) == (502, "server_error")
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(
            model=MODEL, messages=user("[[mock status=400 code=context_length_exceeded]]")
        )
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize("fault", ["cut_after=3", "drop_after=3", "close_clean_after=3", "half_event_after=3"])
def test_a_lost_stream_raises(client, stack, fault):
    with pytest.raises(openai.APIError):
        for _ in client.chat.completions.create(
            model=MODEL, stream=True, messages=user(f"[[mock tokens=20 {fault}]]")
        ):
            pass
    record = one_record(stack)
    assert record["end_reason"] == "upstream_error" and record["output_tokens"] > 0


def test_cancel_in_the_middle_leaves_one_record(client, stack):
    stream = client.chat.completions.create(
        model=MODEL, stream=True, messages=user("[[mock tokens=1000 token_ms=20]]")
    )
    for number, _ in enumerate(stream):
        if number == 4:
            break
    stream.close()
    record = one_record(stack)
    assert (record["end_reason"], record["basis"]) == ("client_gone", "partial_estimate")
    assert 0 < record["output_tokens"] < 100
    eventually("the provider is cancelled", lambda: stack.mock.stats()["cancelled"] == 1, 2)


def test_keys_in_other_headers(stack):
    client = openai.OpenAI(
        base_url=f"{stack.tyr.url}/v1", api_key="somebody-elses-token", default_headers={"x-tyr-key": KEY}
    )
    assert client.chat.completions.create(model=MODEL, messages=user("hello")).choices
    sent = dict(stack.mock.stats()["last"]["headers"])
    assert sent["authorization"] == "Bearer sk-upstream-openai-0001" and "x-tyr-key" not in sent
