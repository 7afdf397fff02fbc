"""The official anthropic SDK through tyr: nothing but base_url and key is changed."""

import asyncio

import anthropic
import httpx2
import pytest

from processes import KEY, LIMITED_KEY, NARROW_KEY, SPENT_KEY, eventually

MODEL = "claude-haiku-4-5"
TOOL = {
    "name": "weather",
    "description": "Weather of a place",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def user(text):
    return [{"role": "user", "content": text}]


def with_key(stack, key, **options):
    return anthropic.Anthropic(base_url=stack.tyr.url, api_key=key, **options)


@pytest.fixture
def client(stack):
    with with_key(stack, KEY) as client:
        yield client


def ask(client, text, **options):
    return client.messages.create(model=MODEL, max_tokens=100, messages=user(text), **options)


def one_record(stack):
    records = eventually("a usage record", stack.tyr.records)
    assert len(records) == 1, records
    return records[0]


def test_message(client, stack):
    raw = client.messages.with_raw_response.create(
        model=MODEL, max_tokens=100, messages=user("hello [[mock tokens=5 cached=3]]")
    )
    answer = raw.parse()
    assert answer.content[0].text and answer.stop_reason == "end_turn"
    assert answer._request_id == raw.headers["request-id"] == raw.headers["x-request-id"]
    record = one_record(stack)
    usage = (record["input_tokens"], record["cache_read_tokens"], record["output_tokens"])
    assert usage == (answer.usage.input_tokens, 3, 5)
    assert record["cost_nano_usd"] == usage[0] * 1000 + 3 * 100 + 5 * 5000


def test_message_stream(client, stack):
    events = list(ask(client, "[[mock tokens=7]]", stream=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert one_record(stack)["output_tokens"] == 7


def test_message_stream_helper(client):
    with client.messages.stream(model=MODEL, max_tokens=100, messages=user("[[mock tokens=7]]")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text and final.content[0].text == text and final.usage.output_tokens == 7


def test_thinking_passes(client):
    answer = ask(client, "[[mock tokens=3 thinking]]")
    block = answer.content[0]
    assert block.type == "thinking" and block.signature
    again = client.messages.create(
        model=MODEL,
        max_tokens=100,
        messages=[*user("first"), {"role": "assistant", "content": answer.content}, *user("second")],
    )
    assert again.content


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client, stream):
    question = user("""[[mock tool=weather args='{"city":"Oslo"}']]""")
    options = {"model": MODEL, "max_tokens": 100, "tools": [TOOL]}
    if stream:
        with client.messages.stream(messages=question, **options) as events:
            answer = events.get_final_message()
    else:
        answer = client.messages.create(messages=question, **options)
    assert answer.stop_reason == "tool_use"
    call = next(block for block in answer.content if block.type == "tool_use")
    assert (call.name, call.input) == ("weather", {"city": "Oslo"})
    result = [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]
    turns = [*question, {"role": "assistant", "content": answer.content}, {"role": "user", "content": result}]
    final = client.messages.create(messages=turns, **options)
    assert final.stop_reason == "end_turn"


def test_count_tokens(client, stack):
    count = client.messages.count_tokens(model=MODEL, messages=user("hello there"))
    assert count.input_tokens > 0
    assert one_record(stack)["cost_nano_usd"] == 0


def test_models(client, stack):
    names = [model.id for model in client.models.list()]
    assert MODEL in names and client.models.retrieve(MODEL).id == MODEL
    assert MODEL not in [model.id for model in with_key(stack, NARROW_KEY).models.list()]


def test_prefixed_base_url_and_bearer(stack):
    client = anthropic.Anthropic(base_url=f"{stack.tyr.url}/anthropic", auth_token=KEY, api_key=None)
    assert ask(client, "hello").content
    sent = dict(stack.mock.stats()["last"]["headers"])
    assert sent["x-api-key"] == "sk-upstream-anthropic-0001" and "authorization" not in sent


def test_betas_pass_unchanged(client, stack):
    client.beta.messages.create(
        model=MODEL,
        max_tokens=10,
        messages=user("hello"),
        betas=["interleaved-thinking-2025-05-14", "context-1m-2025-08-07"],
    )
    last = stack.mock.stats()["last"]
    sent = dict(last["headers"])
    assert sent["anthropic-beta"] == "interleaved-thinking-2025-05-14,context-1m-2025-08-07"
    assert sent["anthropic-version"]


def test_async(stack):
    async def run():
        async with anthropic.AsyncAnthropic(base_url=stack.tyr.url, api_key=KEY) as client:
            async def one(number):
                async with client.messages.stream(
                    model=MODEL, max_tokens=100, messages=user(f"[[mock tokens={number % 7 + 1} token_ms=5]]")
                ) as stream:
                    return await stream.get_final_message()

            return await asyncio.gather(*(one(number) for number in range(40)))

    answers = asyncio.run(run())
    assert [answer.usage.output_tokens for answer in answers] == [n % 7 + 1 for n in range(40)]
    records = eventually("40 records", lambda: len(stack.tyr.records()) == 40 and stack.tyr.records())
    assert sum(record["output_tokens"] for record in records) == sum(n % 7 + 1 for n in range(40))


def test_error_classes(stack):
    with pytest.raises(anthropic.AuthenticationError) as error:
        ask(with_key(stack, "sk-tyr-nobody-000000000000"), "x")
    assert error.value.body["error"]["type"] == "authentication_error"
    assert error.value.request_id and error.value.body["request_id"] == error.value.request_id
    with pytest.raises(anthropic.PermissionDeniedError) as error:
        ask(with_key(stack, NARROW_KEY), "x")
    assert error.value.body["error"]["type"] == "permission_error"
    with pytest.raises(anthropic.NotFoundError) as error:
        with_key(stack, KEY).messages.create(model="claude-nothing", max_tokens=5, messages=user("x"))
    assert error.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError) as error:
        with_key(stack, KEY).post("/v1/messages", body={"messages": []}, cast_to=object)
    assert error.value.body["error"]["type"] == "invalid_request_error"
    assert stack.mock.requests() == 0


def test_rate_limit(stack):
    client = with_key(stack, LIMITED_KEY, max_retries=0)
    raw = client.messages.with_raw_response.create(model=MODEL, max_tokens=5, messages=user("x"))
    assert raw.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert raw.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    with pytest.raises(anthropic.RateLimitError) as error:
        ask(client, "x")
    assert error.value.body["error"]["type"] == "rate_limit_error"
    assert int(error.value.response.headers["retry-after"]) > 0


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
    with pytest.raises(anthropic.APIStatusError) as error:
        ask(client, "x")
    assert (error.value.status_code, error.value.body["error"]["type"]) == (402, "billing_error")
    assert error.value.response.headers["x-should-retry"] == "false"
    assert (transport.count, stack.mock.requests()) == (1, 0)


def test_a_providers_word_not_to_retry_is_passed_on(stack):
    transport = Counting()
    client = with_key(stack, KEY, http_client=httpx2.Client(transport=transport))
    with pytest.raises(anthropic.RateLimitError):
        ask(client, "[[mock status=429 should_retry=false]]")
    assert (transport.count, stack.mock.requests()) == (1, 1)


def test_a_providers_limit_is_retried(stack):
    transport = Counting()
    client = with_key(stack, KEY, http_client=httpx2.Client(transport=transport))
    assert ask(client, "[[mock status=429 retry_after_ms=20 times=2 id=ms]]").content
    assert transport.count == 3


def test_upstream_errors(stack):
    client = with_key(stack, KEY, max_retries=0)
    with pytest.raises(anthropic.InternalServerError) as error:
        ask(client, "[[mock status=500]]")
    assert (error.value.status_code, error.value.body["error"]["type"]) == (500, "api_error")


@pytest.mark.parametrize("fault", ["cut_after=4", "drop_after=4", "close_clean_after=4", "half_event_after=4"])
def test_a_lost_stream_raises(client, stack, fault):
    with pytest.raises(anthropic.APIError):
        for _ in ask(client, f"[[mock tokens=20 {fault}]]", stream=True):
            pass
    assert one_record(stack)["end_reason"] == "upstream_error"


def test_cancel_in_the_middle_leaves_one_record(client, stack):
    with client.messages.stream(
        model=MODEL, max_tokens=10_000, messages=user("[[mock tokens=1000 token_ms=20]]")
    ) as stream:
        for number, _ in enumerate(stream.text_stream):
            if number == 4:
                break
    record = one_record(stack)
    assert (record["end_reason"], record["basis"]) == ("client_gone", "partial_estimate")
    assert 0 < record["output_tokens"] < 100 and record["input_tokens"] > 0
    eventually("the provider is cancelled", lambda: stack.mock.stats()["cancelled"] == 1, 2)
