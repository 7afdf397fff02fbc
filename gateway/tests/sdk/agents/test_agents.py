"""Claude Code and Codex through tyr: unmodified, with a fresh home, offline.

The mock provider asks for one tool call; the agent runs it and sends the
result back, so each exchange takes two calls of the model.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

from processes import KEY, LIMITED_KEY, ROOT, eventually

MODULES = ROOT / "gateway" / "tests" / "sdk" / "js" / "node_modules"
CLAUDE = MODULES / "@anthropic-ai" / "claude-code-linux-x64" / "claude"
CODEX = MODULES / ".bin" / "codex"
CLAUDE_MODEL = "claude-haiku-4-5"
CODEX_MODEL = "gpt-5-codex"


def run(command, home, variables, seconds=120):
    """Runs a command with this environment and nothing of ours."""
    environment = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "LANG": "C.UTF-8",
        "TMPDIR": str(home),
        **variables,
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    return done


def claude(stack, home, prompt, *arguments, **variables):
    base = {
        "ANTHROPIC_BASE_URL": stack.tyr.url,
        "ANTHROPIC_AUTH_TOKEN": KEY,
        "ANTHROPIC_MODEL": CLAUDE_MODEL,
        "ANTHROPIC_SMALL_FAST_MODEL": CLAUDE_MODEL,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        **variables,
    }
    base = {name: value for name, value in base.items() if value is not None}
    return run([CLAUDE, "-p", prompt, "--output-format", "json", *arguments], home, base)


def codex(stack, home, prompt, *arguments, sockets=False, key=KEY):
    folder = Path(home) / ".codex"
    folder.mkdir(exist_ok=True)
    (folder / "config.toml").write_text(
        f"""model = "{CODEX_MODEL}"
model_provider = "tyr"
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.tyr]
name = "tyr"
base_url = "{stack.tyr.url}/v1"
env_key = "TYR_KEY"
wire_api = "responses"
supports_websockets = {str(sockets).lower()}
"""
    )
    command = [CODEX, "exec", "--json", "--ephemeral", "--skip-git-repo-check"]
    for setting in ("analytics.enabled=false", "check_for_update_on_startup=false", "features.plugins=false"):
        command += ["-c", setting]
    return run([*command, *arguments, prompt], home, {"CODEX_HOME": str(folder), "TYR_KEY": key})


def told(done):
    return f"exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def records_of(stack, endpoint, count):
    def enough():
        records = [one for one in stack.tyr.records() if one["endpoint"] == endpoint]
        return len(records) >= count and records

    return eventually(f"{count} records of {endpoint}", enough)


def test_claude_code_says_pong(stack, tmp_path):
    done = claude(stack, tmp_path, "say pong")
    assert done.returncode == 0, told(done)
    result = json.loads(done.stdout)
    assert result["type"] == "result" and result["is_error"] is False, told(done)
    assert result["result"], told(done)
    record = records_of(stack, "messages", 1)[-1]
    assert record["end_reason"] == "success" and record["basis"] == "reported", record
    assert record["input_tokens"] > 0 and record["output_tokens"] > 0


@pytest.mark.parametrize("prefix", ["", "/anthropic"])
def test_claude_code_uses_a_tool(stack, tmp_path, prefix):
    prompt = """[[mock tool=Bash args='{"command":"echo pong","description":"say it"}']] run it"""
    done = claude(
        stack,
        tmp_path,
        prompt,
        "--allowedTools",
        "Bash(echo:*)",
        ANTHROPIC_BASE_URL=stack.tyr.url + prefix,
        ANTHROPIC_AUTH_TOKEN=None if prefix else KEY,
        **({"ANTHROPIC_API_KEY": KEY} if prefix else {}),
    )
    assert done.returncode == 0, told(done)
    result = json.loads(done.stdout)
    assert result["is_error"] is False and result["num_turns"] >= 2, told(done)
    assert "pong" in result["result"], told(done)
    stats = stack.mock.stats()
    calls = [one for one in stats["recent"] if one["path"] == "/v1/messages"]
    assert len(calls) >= 2 and all(one["outcome"] == "finished" for one in calls), calls
    sent = dict(calls[-1]["headers"])
    assert sent["anthropic-beta"] and sent["x-api-key"] == "sk-upstream-anthropic-0001"
    assert KEY not in json.dumps(calls)
    records = records_of(stack, "messages", len(calls))
    assert len(records) == len(calls) and all(one["end_reason"] == "success" for one in records), records


def test_claude_code_is_told_its_limit(stack, tmp_path):
    options = {"ANTHROPIC_AUTH_TOKEN": LIMITED_KEY, "CLAUDE_CODE_MAX_RETRIES": "0"}
    claude(stack, tmp_path, "say pong", **options)
    done = claude(stack, tmp_path, "say pong", **options)
    assert json.loads(done.stdout)["is_error"] is True, told(done)
    assert "limit" in done.stdout.lower(), told(done)
    assert stack.mock.paths().get("/v1/messages", 0) == 1


def test_codex_says_pong(stack, tmp_path):
    done = codex(stack, tmp_path, "say pong")
    assert done.returncode == 0, told(done)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    kinds = [event["type"] for event in events]
    assert "turn.completed" in kinds, told(done)
    record = records_of(stack, "responses", 1)[-1]
    assert record["end_reason"] == "success" and record["output_tokens"] > 0, record


@pytest.mark.parametrize("sockets", [False, True])
def test_codex_uses_a_tool(stack, tmp_path, sockets):
    prompt = "[[mock tool=exec_command args='{\"cmd\":\"echo pong\"}']] run it"
    done = codex(stack, tmp_path, prompt, sockets=sockets)
    assert done.returncode == 0, told(done)
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    ran = [event for event in events if event.get("item", {}).get("type") == "command_execution"]
    assert ran and "pong" in json.dumps(ran), told(done)
    assert any(event["type"] == "turn.completed" for event in events), told(done)
    calls = [one for one in stack.mock.stats()["recent"] if one["path"] == "/v1/responses"]
    assert len(calls) == 2 and all(one["outcome"] == "finished" for one in calls), calls
    records = records_of(stack, "responses", 2)
    assert all(one["end_reason"] == "success" for one in records if one["status"] == 200), records


def test_codex_stops_at_a_spent_budget(stack, tmp_path):
    from processes import SPENT_KEY

    done = codex(stack, tmp_path, "say pong", key=SPENT_KEY)
    assert done.returncode != 0 or "error" in done.stdout, told(done)
    assert stack.mock.requests() == 0
    assert "budget" in (done.stdout + done.stderr).lower() or "quota" in (done.stdout + done.stderr).lower(), told(done)
