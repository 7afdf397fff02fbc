//! The directives by which one request asks the mock for a certain answer or a certain fault.
//!
//! Promise: an unknown or malformed directive is an error that names it, never silently ignored:
//! a test with a typing error must not pass. Sources, later ones win: `--directives`, the header
//! `x-mock`, the model name after `?`, `metadata.mock`, `user` when it starts with `mock `, and
//! `[[mock …]]` in the last user message.

use std::fmt;
use std::time::Duration;

/// What one request asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Directives {
    pub shape: Shape,
    pub fault: Fault,
    /// The fault hits only the first so many requests with this `id`.
    pub times: Option<u64>,
    pub id: Option<String>,
}

/// How an answer without faults looks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Shape {
    /// Wait before the answer's head.
    pub ttft: Option<Duration>,
    /// Sends the head at once and waits `ttft` before the first event.
    pub head_first: bool,
    /// Wait between two content events.
    pub token_interval: Option<Duration>,
    /// Output tokens, four bytes of text each.
    pub tokens: Option<u64>,
    pub tool: Option<String>,
    pub args: Option<String>,
    pub parallel: Option<u64>,
    pub thinking: bool,
    pub finish: Option<String>,
    /// One piece of text of this many bytes after the tokens.
    pub big: Option<usize>,
    pub usage: UsageShape,
    /// `data:` frames end in CR LF.
    pub crlf: bool,
    /// A `: keep-alive` comment before every event.
    pub comments: bool,
}

/// How usage is reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct UsageShape {
    pub in_every_chunk: bool,
    pub absent: bool,
    pub input: Option<u64>,
    pub output: Option<u64>,
    pub cached: u64,
    pub cache_write: u64,
    pub cache_write_1h: u64,
    pub reasoning: u64,
}

/// What goes wrong.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fault {
    pub status: Option<u16>,
    /// The n-th request with the same `id` gets the n-th status; 200 means a good answer.
    pub statuses: Vec<u16>,
    pub retry_after: Option<String>,
    pub retry_after_ms: Option<String>,
    pub should_retry: Option<bool>,
    pub code: Option<String>,
    pub error_type: Option<String>,
    pub message: Option<String>,
    pub reset_before_head: bool,
    pub hang: bool,
    pub early: Option<Early>,
    pub stream: Option<(u64, StreamFault)>,
    /// How long a stall lasts; for ever when unset.
    pub stall: Option<Duration>,
    pub no_done: bool,
    /// Every event leaves in pieces of so many bytes.
    pub trickle: Option<usize>,
    pub trickle_interval: Option<Duration>,
    pub bad_content_type: bool,
    pub invalid_json: bool,
    /// A unary answer's connection breaks after so many bytes of its body.
    pub cut_body: Option<usize>,
    pub conn_close: bool,
}

/// An answer given while the request body is still on its way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Early {
    pub status: u16,
    /// Bytes of the body to read before answering.
    pub after: u64,
    pub then: EarlyThen,
}

/// What happens to the rest of the body after an early answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum EarlyThen {
    /// It is read to its end.
    Drain,
    /// It is not read: the server closes the connection.
    Close,
}

/// What breaks a stream after a number of events.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum StreamFault {
    /// TCP reset (HTTP/2: the stream is reset).
    Reset,
    /// Orderly close of the connection without the end of the body.
    Drop,
    /// A well-formed end of the body without the protocol's last event.
    EndClean,
    Stall,
    /// An error event in the protocol's form, then a clean end.
    ErrorEvent,
    /// Half of the next event, then the connection closes without the end of the body.
    HalfEvent,
}

/// A directive that cannot be obeyed; Display is for the test's author.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DirectiveProblem(pub(crate) String);

impl fmt::Display for DirectiveProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text between `[[mock` and `]]`, where quotes hide a `]]`; `None` without a directive.
pub(crate) fn bracketed(text: &str) -> Option<&str> {
    let start = text.find("[[mock")? + "[[mock".len();
    let rest = &text[start..];
    let mut quote = None;
    let bytes = rest.as_bytes();
    for (i, &b) in bytes.iter().enumerate() {
        match quote {
            Some(q) if b == q => quote = None,
            Some(_) => {}
            None if b == b'\'' || b == b'"' => quote = Some(b),
            None if b == b']' && bytes.get(i + 1) == Some(&b']') => return Some(&rest[..i]),
            None => {}
        }
    }
    Some(rest)
}

/// Splits `a b=1 c='x y'` at white space and `&`, with quotes around values taken off.
fn words(text: &str) -> Vec<(String, Option<String>)> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace() || *c == '&').is_some() {}
        let mut name = String::new();
        while let Some(c) = chars.next_if(|c| !c.is_whitespace() && *c != '&' && *c != '=') {
            name.push(c);
        }
        if name.is_empty() && chars.peek().is_none() {
            return out;
        }
        let mut value = None;
        if chars.next_if_eq(&'=').is_some() {
            let mut v = String::new();
            if let Some(q) = chars.next_if(|c| *c == '\'' || *c == '"') {
                v.extend(chars.by_ref().take_while(|c| *c != q));
            } else {
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && *c != '&') {
                    v.push(c);
                }
            }
            value = Some(v);
        }
        out.push((name, value));
    }
}

impl Directives {
    /// Adds the directives of `text` (`status=429 retry_after=1`, also joined by `&`).
    pub(crate) fn apply(&mut self, text: &str) -> Result<(), DirectiveProblem> {
        for (name, value) in words(text) {
            let arg = Arg {
                name: &name,
                value: value.as_deref(),
            };
            if !(self.apply_shape(&arg)?
                || self.apply_usage(&arg)?
                || self.apply_error(&arg)?
                || self.apply_break(&arg)?)
            {
                return Err(DirectiveProblem(format!("unknown mock directive '{name}'")));
            }
        }
        Ok(())
    }

    fn apply_shape(&mut self, arg: &Arg<'_>) -> Result<bool, DirectiveProblem> {
        let shape = &mut self.shape;
        match arg.name {
            "ttft" => shape.ttft = Some(arg.millis()?),
            "head_first" => shape.head_first = true,
            "token_ms" => shape.token_interval = Some(arg.millis()?),
            "tokens" => shape.tokens = Some(arg.number()?),
            "tool" => shape.tool = Some(arg.text()?),
            "args" => shape.args = Some(arg.text()?),
            "parallel" => shape.parallel = Some(arg.number()?),
            "thinking" => shape.thinking = true,
            "finish" => shape.finish = Some(arg.text()?),
            "big" => shape.big = Some(arg.number()?),
            "crlf" => shape.crlf = true,
            "comments" => shape.comments = true,
            "times" => self.times = Some(arg.number()?),
            "id" => self.id = Some(arg.text()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn apply_usage(&mut self, arg: &Arg<'_>) -> Result<bool, DirectiveProblem> {
        let usage = &mut self.shape.usage;
        match arg.name {
            "usage_in_every_chunk" => usage.in_every_chunk = true,
            "no_usage" => usage.absent = true,
            "input" => usage.input = Some(arg.number()?),
            "output" => usage.output = Some(arg.number()?),
            "cached" => usage.cached = arg.number()?,
            "cache_write" => usage.cache_write = arg.number()?,
            "cache_write_1h" => usage.cache_write_1h = arg.number()?,
            "reasoning" => usage.reasoning = arg.number()?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn apply_error(&mut self, arg: &Arg<'_>) -> Result<bool, DirectiveProblem> {
        let fault = &mut self.fault;
        match arg.name {
            "status" => fault.status = Some(arg.status()?),
            "statuses" => {
                fault.statuses = arg
                    .text()?
                    .split(',')
                    .map(|s| {
                        if s == "ok" {
                            Ok(200)
                        } else {
                            parse_status(arg.name, s)
                        }
                    })
                    .collect::<Result<_, _>>()?;
            }
            "retry_after" => fault.retry_after = Some(arg.text()?),
            "retry_after_ms" => fault.retry_after_ms = Some(arg.text()?),
            "should_retry" => fault.should_retry = Some(arg.text()? == "true"),
            "code" => fault.code = Some(arg.text()?),
            "error_type" => fault.error_type = Some(arg.text()?),
            "message" => fault.message = Some(arg.text()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn apply_break(&mut self, arg: &Arg<'_>) -> Result<bool, DirectiveProblem> {
        let fault = &mut self.fault;
        let stream = |kind| -> Result<_, DirectiveProblem> { Ok(Some((arg.number()?, kind))) };
        match arg.name {
            "reset_before_head" => fault.reset_before_head = true,
            "hang" | "hang_before_head" => fault.hang = true,
            "early" => fault.early_mut().status = arg.status()?,
            "early_after" => fault.early_mut().after = arg.number()?,
            "early_then" => {
                fault.early_mut().then = match arg.text()?.as_str() {
                    "drain" => EarlyThen::Drain,
                    "close" => EarlyThen::Close,
                    other => return Err(arg.problem(&format!("'{other}' is not drain or close"))),
                };
            }
            "cut_after" => fault.stream = stream(StreamFault::Reset)?,
            "drop_after" => fault.stream = stream(StreamFault::Drop)?,
            "close_clean_after" => fault.stream = stream(StreamFault::EndClean)?,
            "stall_after" => fault.stream = stream(StreamFault::Stall)?,
            "stall_ms" => fault.stall = Some(arg.millis()?),
            "error_after" => fault.stream = stream(StreamFault::ErrorEvent)?,
            "half_event_after" => fault.stream = stream(StreamFault::HalfEvent)?,
            "no_done" => fault.no_done = true,
            "trickle" => fault.trickle = Some(arg.number::<usize>()?.max(1)),
            "trickle_ms" => fault.trickle_interval = Some(arg.millis()?),
            "bad_content_type" => fault.bad_content_type = true,
            "invalid_json" => fault.invalid_json = true,
            "cut_body" => fault.cut_body = Some(arg.number()?),
            "conn_close" => fault.conn_close = true,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Fault {
    fn early_mut(&mut self) -> &mut Early {
        self.early.get_or_insert(Early {
            status: 413,
            after: 1,
            then: EarlyThen::Drain,
        })
    }
}

struct Arg<'a> {
    name: &'a str,
    value: Option<&'a str>,
}

impl Arg<'_> {
    fn problem(&self, what: &str) -> DirectiveProblem {
        DirectiveProblem(format!("mock directive '{}': {what}", self.name))
    }

    fn text(&self) -> Result<String, DirectiveProblem> {
        self.value
            .map(str::to_owned)
            .ok_or_else(|| self.problem("needs a value"))
    }

    fn number<T: std::str::FromStr>(&self) -> Result<T, DirectiveProblem> {
        let text = self.value.unwrap_or_default();
        text.parse()
            .map_err(|_| self.problem(&format!("'{text}' is not a whole number")))
    }

    fn millis(&self) -> Result<Duration, DirectiveProblem> {
        self.number().map(Duration::from_millis)
    }

    fn status(&self) -> Result<u16, DirectiveProblem> {
        parse_status(self.name, self.value.unwrap_or_default())
    }
}

fn parse_status(name: &str, text: &str) -> Result<u16, DirectiveProblem> {
    match text.parse() {
        Ok(code @ 200..=599) => Ok(code),
        _ => Err(DirectiveProblem(format!(
            "mock directive '{name}': '{text}' is not a status from 200 to 599"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Directives {
        let mut d = Directives::default();
        d.apply(text).unwrap();
        d
    }

    #[test]
    fn a_message_directive_is_found_and_quotes_hide_brackets() {
        let inner =
            bracketed(r#"hello [[mock tool=Bash args='{"a":[[1]]}' tokens=3]] bye"#).unwrap();
        let d = parsed(inner);
        assert_eq!(d.shape.args.as_deref(), Some(r#"{"a":[[1]]}"#));
        assert_eq!(d.shape.tool.as_deref(), Some("Bash"));
        assert_eq!(d.shape.tokens, Some(3));
        assert_eq!(bracketed("no directive"), None);
    }

    #[test]
    fn model_suffix_form_uses_ampersands() {
        let d = parsed("status=429&retry_after=1&times=2&id=x");
        assert_eq!(d.fault.status, Some(429));
        assert_eq!(d.fault.retry_after.as_deref(), Some("1"));
        assert_eq!((d.times, d.id.as_deref()), (Some(2), Some("x")));
    }

    #[test]
    fn later_sources_win() {
        let mut d = parsed("tokens=5 cut_after=3");
        d.apply("tokens=7 stall_after=2").unwrap();
        assert_eq!(d.shape.tokens, Some(7));
        assert_eq!(d.fault.stream, Some((2, StreamFault::Stall)));
    }

    #[test]
    fn a_typing_error_is_named() {
        let mut d = Directives::default();
        let problem = d.apply("statsu=500").unwrap_err();
        assert!(problem.to_string().contains("statsu"), "{problem}");
        assert!(d.apply("status=9").is_err());
        assert!(d.apply("tokens=many").is_err());
        assert!(d.apply("=5").is_err());
    }

    #[test]
    fn a_list_of_statuses() {
        assert_eq!(
            parsed("statuses=429,500,ok").fault.statuses,
            [429, 500, 200]
        );
    }
}
