//! The scenarios and the promises each of them checks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::report::{Outcome, Report};
use crate::target::{Answer, Target};

/// Text of a request, so that it is about 1 KiB long.
const FILLER: &str = "Tell me something about the sea, in plain words and not too long. ";

fn request(target: &Target, text: &str, stream: bool) -> Bytes {
    let body = json!({
        "model": target.model, "stream": stream, "messages": [{"role": "user", "content": text}],
    });
    body.to_string().into()
}

/// `count` requests at `rate` per second.
pub(crate) async fn unary(target: Target, rate: u64, count: u64, in_flight: usize) -> Report {
    let mut report = Report::new("unary");
    let body = request(&target, &FILLER.repeat(14), false);
    let slots = Arc::new(Semaphore::new(in_flight));
    let mut running = JoinSet::new();
    let start = Instant::now();
    for n in 0..count {
        let due = start + Duration::from_nanos(n * 1_000_000_000 / rate);
        tokio::time::sleep_until(due).await;
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let (target, body) = (target.clone(), body.clone());
        running.spawn(async move {
            let answer = target.chat(body).await;
            drop(slot);
            whole(answer?).map(|first_byte| Outcome::Admitted {
                total: due.elapsed(),
                first_byte,
            })
        });
        while let Some(Ok(outcome)) = running.try_join_next() {
            report.add(outcome);
        }
    }
    finish(running, &mut report).await;
    report
}

async fn finish(mut running: JoinSet<Result<Outcome, String>>, report: &mut Report) {
    while let Some(joined) = running.join_next().await {
        report.add(joined.unwrap_or_else(|e| Err(format!("the driver itself failed: {e}"))));
    }
}

/// An answer is 200, JSON, with text and with usage.
fn whole(answer: Answer) -> Result<Duration, String> {
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, text(&answer.body)));
    }
    let body: Value = serde_json::from_slice(&answer.body).map_err(|e| format!("not JSON: {e}"))?;
    if body["choices"][0]["message"]["content"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        return Err("no text in the answer".into());
    }
    if body["usage"]["completion_tokens"]
        .as_u64()
        .is_none_or(|n| n == 0)
    {
        return Err("no usage in the answer".into());
    }
    Ok(answer.first_byte)
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

/// `streams` streams at a time for `time`.
pub(crate) async fn streaming(
    target: Target,
    streams: usize,
    time: Duration,
    tokens: u64,
    token_ms: u64,
) -> Report {
    let mut report = Report::new("streaming");
    let body = request(
        &target,
        &format!("[[mock tokens={tokens} token_ms={token_ms}]]"),
        true,
    );
    let end = Instant::now() + time;
    let mut running = JoinSet::new();
    for _ in 0..streams {
        let (target, body) = (target.clone(), body.clone());
        running.spawn(async move {
            let mut outcomes = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                let outcome = target
                    .chat(body.clone())
                    .await
                    .and_then(|answer| complete(&answer, tokens));
                let failed = outcome.is_err();
                outcomes.push(outcome.map(|first_byte| Outcome::Admitted {
                    total: start.elapsed(),
                    first_byte,
                }));
                if failed {
                    // A target that is down must not be hammered.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            outcomes
        });
    }
    while let Some(joined) = running.join_next().await {
        match joined {
            Ok(outcomes) => outcomes.into_iter().for_each(|outcome| report.add(outcome)),
            Err(e) => report.broke(format!("the driver itself failed: {e}")),
        }
    }
    report
}

/// A stream is 200, SSE, holds every token, no usage chunk nobody asked for, and ends in `[DONE]`.
fn complete(answer: &Answer, tokens: u64) -> Result<Duration, String> {
    if answer.status != 200 {
        return Err(format!("status {}: {}", answer.status, text(&answer.body)));
    }
    let kind = answer
        .headers
        .get("content-type")
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    if !kind.starts_with("text/event-stream") {
        return Err(format!("content-type '{kind}' is not an event stream"));
    }
    let body = String::from_utf8_lossy(&answer.body);
    let data: Vec<&str> = body
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    if data.last() != Some(&"[DONE]") {
        return Err(format!(
            "the stream ends in {:?}, not in [DONE]",
            data.last()
        ));
    }
    let mut pieces = 0;
    for line in &data[..data.len() - 1] {
        let chunk: Value =
            serde_json::from_str(line).map_err(|e| format!("event is not JSON: {e}"))?;
        if chunk["choices"].as_array().is_none_or(Vec::is_empty) {
            return Err("a usage-only chunk that nobody asked for".into());
        }
        let content = chunk["choices"][0]["delta"]["content"].as_str();
        pieces += u64::from(content.is_some_and(|text| !text.is_empty()));
    }
    if pieces != tokens {
        return Err(format!("{pieces} of {tokens} pieces arrived"));
    }
    Ok(answer.first_byte)
}

/// A burst of `requests` on a key with a limit of `limit` requests per window; one node admits
/// exactly that.
pub(crate) async fn limits(target: Target, limit: u64, requests: u64, in_flight: usize) -> Report {
    let mut report = Report::new("limits");
    let at_once = Duration::ZERO;
    burst(&[target], requests, at_once, in_flight, &mut report).await;
    let expected = limit.min(requests);
    if report.admitted() != expected {
        report.broke(format!(
            "{} admitted, the limit is {expected}",
            report.admitted()
        ));
    }
    report
}

/// What several nodes are asked that share a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    pub(crate) limit: u64,
    pub(crate) requests: u64,
    /// A second, of all nodes.
    pub(crate) rate: u64,
    /// How many more than the limit may be admitted.
    pub(crate) slack: u64,
    pub(crate) in_flight: usize,
}

/// Requests to several nodes in turn on a key whose limit they share: `slack` more may be admitted,
/// and a tenth less.
pub(crate) async fn cluster(targets: &[Target], shared: Shared) -> Report {
    let mut report = Report::new("cluster");
    let Shared { limit, slack, .. } = shared;
    let gap = Duration::from_secs(1) / u32::try_from(shared.rate.max(1)).unwrap_or(u32::MAX);
    burst(targets, shared.requests, gap, shared.in_flight, &mut report).await;
    let expected = limit.min(shared.requests);
    let allowed = expected - expected.div_ceil(10)..=expected + slack;
    if !allowed.contains(&report.admitted()) {
        report.broke(format!(
            "{} admitted by {} nodes, {allowed:?} may be",
            report.admitted(),
            targets.len()
        ));
    }
    report
}

/// Requests to the targets in turn, `gap` apart, each admitted or refused as it should be.
async fn burst(
    targets: &[Target],
    requests: u64,
    gap: Duration,
    in_flight: usize,
    report: &mut Report,
) {
    let slots = Arc::new(Semaphore::new(in_flight));
    let mut running = JoinSet::new();
    let in_turn = targets.iter().cycle();
    let mut due = Instant::now();
    for (_, target) in (0..requests).zip(in_turn) {
        tokio::time::sleep_until(due).await;
        due += gap;
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            break;
        };
        let body = request(target, "hello", false);
        let target = target.clone();
        running.spawn(async move {
            let start = Instant::now();
            let answer = target.chat(body).await;
            drop(slot);
            let answer = answer?;
            if answer.status == 429 {
                return refused(&answer);
            }
            whole(answer).map(|first_byte| Outcome::Admitted {
                total: start.elapsed(),
                first_byte,
            })
        });
    }
    finish(running, report).await;
}

/// A refusal says when to return and has the form of an error.
fn refused(answer: &Answer) -> Result<Outcome, String> {
    let after = answer
        .headers
        .get("retry-after")
        .and_then(|v| v.to_str().ok());
    if after
        .and_then(|text| text.parse::<u64>().ok())
        .is_none_or(|seconds| seconds == 0)
    {
        return Err(format!("429 with retry-after {after:?}"));
    }
    let body: Value =
        serde_json::from_slice(&answer.body).map_err(|e| format!("429 without JSON: {e}"))?;
    if body["error"]["message"].as_str().is_none_or(str::is_empty) {
        return Err("429 without error.message".into());
    }
    Ok(Outcome::Refused)
}
