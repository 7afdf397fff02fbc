//! What will be said, before it is written in a dialect: text pieces, tool calls, token numbers.
//!
//! Promise: pure and deterministic; every piece of output is one token of four bytes (the last one
//! of a literal may be shorter), so `output tokens = pieces sent`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::control::Shape;
use crate::request::{Ask, Tool};

/// Four ASCII bytes each, nothing that JSON would escape.
const WORDS: [&str; 8] = [
    "the ", "sun ", "did ", "not ", "set ", "but ", "was ", "low ",
];

/// Output of `thinking`, in tokens.
const THINKING_TOKENS: u64 = 8;

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub id: u64,
    pub model: String,
    /// Seconds since the epoch.
    pub created: u64,
    pub thinking: u64,
    pub text: Text,
    pub calls: Vec<Call>,
    pub stop: Stop,
    pub tokens: Tokens,
}

/// The visible text.
#[derive(Debug, Clone)]
pub(crate) enum Text {
    /// So many words, then one piece of `big` bytes.
    Words {
        count: u64,
        big: usize,
    },
    Literal(String),
}

/// One tool call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub id: String,
    pub name: String,
    /// `function`, `custom` or `local_shell`.
    pub kind: String,
    pub arguments: String,
}

/// Why it ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stop {
    End,
    Length,
    ToolUse,
    /// As asked for, written as is.
    Other(String),
}

/// The numbers of the usage report. `input` holds the cache buckets, `output` the reasoning.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub cache_write_1h: u64,
    pub output: u64,
    pub reasoning: u64,
}

impl Tokens {
    /// Input outside of all cache buckets (the Anthropic `input_tokens`).
    pub(crate) fn fresh_input(&self) -> u64 {
        let in_cache = self.cached + self.cache_write + self.cache_write_1h;
        self.input.saturating_sub(in_cache)
    }
}

impl Text {
    /// The pieces a stream sends one by one.
    pub(crate) fn pieces(&self) -> Box<dyn Iterator<Item = Cow<'static, str>> + Send> {
        match self {
            Self::Words { count, big } => {
                let big = (*big > 0).then(|| Cow::Owned("x".repeat(*big)));
                Box::new((0..*count).map(|i| Cow::Borrowed(word(i))).chain(big))
            }
            Self::Literal(text) => {
                let pieces: Vec<_> = split(text).map(|p| Cow::Owned(p.to_owned())).collect();
                Box::new(pieces.into_iter())
            }
        }
    }

    /// The whole text.
    pub(crate) fn whole(&self) -> String {
        self.pieces().collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Self::Words { count, big } => *count == 0 && *big == 0,
            Self::Literal(text) => text.is_empty(),
        }
    }

    fn tokens(&self) -> u64 {
        match self {
            Self::Words { count, big } => count + (*big as u64).div_ceil(4),
            Self::Literal(text) => split(text).count() as u64,
        }
    }
}

/// Output tokens that one piece stands for.
pub(crate) fn piece_tokens(piece: &str) -> u64 {
    (piece.len() as u64).div_ceil(4)
}

fn word(i: u64) -> &'static str {
    // The modulus keeps the index inside the array on every platform.
    WORDS[usize::try_from(i % WORDS.len() as u64).unwrap_or(0)]
}

/// Pieces of four bytes, longer only where a character is longer.
pub(crate) fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = (4..rest.len())
            .find(|&i| rest.is_char_boundary(i))
            .unwrap_or(rest.len());
        let (piece, after) = rest.split_at(at);
        rest = after;
        Some(piece)
    })
}

/// The thinking text's pieces.
pub(crate) fn thinking_pieces(count: u64) -> impl Iterator<Item = &'static str> + Send {
    (0..count).map(word)
}

impl Answer {
    /// Decides what to answer. `default_tokens`: output tokens when the request does not say.
    pub(crate) fn plan(ask: &Ask, shape: &Shape, default_tokens: u64, id: u64) -> Self {
        let thinking = if shape.thinking { THINKING_TOKENS } else { 0 };
        let calls = if ask.tool_result.is_none() {
            calls(ask, shape, id)
        } else {
            Vec::new()
        };
        let mut stop = if calls.is_empty() {
            Stop::End
        } else {
            Stop::ToolUse
        };
        let mut text = match (&ask.tool_result, calls.is_empty()) {
            (Some(result), _) => Text::Literal(done_text(result)),
            (None, true) => Text::Words {
                count: shape.tokens.unwrap_or(default_tokens),
                big: shape.big.unwrap_or(0),
            },
            (None, false) => Text::Words {
                count: shape.tokens.unwrap_or(0),
                big: 0,
            },
        };
        if let (Some(max), Text::Words { count, .. }) = (ask.max_output, &mut text)
            && *count > max
        {
            *count = max;
            stop = Stop::Length;
        }
        if let Some(finish) = &shape.finish {
            stop = Stop::Other(finish.clone());
        }
        let said = text.tokens() * ask.choices
            + calls
                .iter()
                .map(|c| split(&c.arguments).count() as u64)
                .sum::<u64>()
            + thinking;
        let usage = &shape.usage;
        let tokens = Tokens {
            input: usage.input.unwrap_or(ask.input_tokens),
            cached: usage.cached,
            cache_write: usage.cache_write,
            cache_write_1h: usage.cache_write_1h,
            output: usage.output.unwrap_or(said + usage.reasoning),
            reasoning: usage.reasoning + thinking,
        };
        Self {
            id,
            model: ask.model.clone(),
            created: now(),
            thinking,
            text,
            calls,
            stop,
            tokens,
        }
    }
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |d| d.as_secs())
}

/// `done: ` and the first 100 characters of the tool's result.
fn done_text(result: &str) -> String {
    let start: String = result.chars().take(100).collect();
    format!("done: {start}")
}

/// Names under which coding agents declare "run a command".
const SHELLS: [&str; 6] = [
    "exec_command",
    "shell_command",
    "shell",
    "local_shell",
    "container.exec",
    "Bash",
];

fn calls(ask: &Ask, shape: &Shape, id: u64) -> Vec<Call> {
    let Some(wanted) = shape.tool.clone().or_else(|| asked_tool(ask)) else {
        return Vec::new();
    };
    let tool = find_tool(ask, &wanted);
    let name = tool.map_or(wanted.as_str(), |t| t.name.as_str());
    let kind = tool.map_or("function", |t| t.kind.as_str());
    let arguments = shape.args.clone().unwrap_or_else(|| arguments(name, tool));
    (0..shape.parallel.unwrap_or(1))
        .map(|n| Call {
            id: format!("call_mock_{id}_{n}"),
            name: name.to_owned(),
            kind: kind.to_owned(),
            arguments: arguments.clone(),
        })
        .collect()
}

/// The NAME in "use tool NAME", when the request declares tools at all.
fn asked_tool(ask: &Ask) -> Option<String> {
    if ask.tools.is_empty() {
        return None;
    }
    let (_, rest) = ask.user_text.split_once("use tool ")?;
    let end = rest
        .find(|c: char| !(c.is_alphanumeric() || "_-.:".contains(c)))
        .unwrap_or(rest.len());
    let name = rest[..end].trim_end_matches(['.', ':']);
    (!name.is_empty()).then(|| name.to_owned())
}

/// The declared tool; `shell` stands for whichever shell tool the client declares.
fn find_tool<'a>(ask: &'a Ask, wanted: &str) -> Option<&'a Tool> {
    let any_shell = || SHELLS.iter().find_map(|name| ask.tool(name));
    ask.tool(wanted)
        .or_else(|| (wanted == "shell").then(any_shell).flatten())
}

/// Arguments that the named tool accepts.
fn arguments(name: &str, tool: Option<&Tool>) -> String {
    let kind = |field: &str| tool.and_then(|t| t.schema["properties"][field]["type"].as_str());
    let value = match name {
        "Bash" => json!({"command": "echo hi", "description": "Say hi"}),
        "exec_command" => json!({"cmd": "echo hi"}),
        "shell_command" => json!({"command": "echo hi"}),
        "shell" | "local_shell" | "container.exec" if kind("command") == Some("string") => {
            json!({"command": "echo hi"})
        }
        "shell" | "local_shell" | "container.exec" => json!({"command": ["echo", "hi"]}),
        _ => from_schema(tool.map_or(&Value::Null, |t| &t.schema)),
    };
    value.to_string()
}

/// The required properties of an object schema with plain values.
fn from_schema(schema: &Value) -> Value {
    let mut out = Map::new();
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        let property = &schema["properties"][name];
        let value = match property["type"].as_str() {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            Some("object") => json!({}),
            _ => property["enum"]
                .get(0)
                .cloned()
                .unwrap_or_else(|| json!("mock")),
        };
        out.insert(name.to_owned(), value);
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Directives;

    fn answer(body: &Value) -> Answer {
        let mut directives = Directives::default();
        let ask = Ask::read(body, &mut directives).unwrap();
        Answer::plan(&ask, &directives.shape, 20, 7)
    }

    #[test]
    fn words_are_four_bytes_and_counted() {
        let a = answer(&json!({"messages":[{"role":"user","content":"hi"}]}));
        assert_eq!(a.text.whole().len(), 80);
        assert_eq!((a.tokens.input, a.tokens.output), (1, 20));
        assert_eq!(a.stop, Stop::End);
    }

    #[test]
    fn max_tokens_cuts_the_text() {
        let a = answer(&json!({"max_tokens":3,"messages":[{"role":"user","content":"hi"}]}));
        assert_eq!(a.text.whole(), "the sun did ");
        assert_eq!((a.tokens.output, a.stop), (3, Stop::Length));
    }

    #[test]
    fn shell_stands_for_the_declared_shell_tool() {
        let a = answer(&json!({"tools":[{"type":"function","name":"exec_command"}],
            "input":"please use tool shell."}));
        assert_eq!(a.calls[0].name, "exec_command");
        assert_eq!(a.calls[0].arguments, r#"{"cmd":"echo hi"}"#);
        assert_eq!(a.stop, Stop::ToolUse);
        let none = answer(&json!({"input":"use tool shell"}));
        assert!(none.calls.is_empty());
    }

    #[test]
    fn required_arguments_come_from_the_schema() {
        let a = answer(
            &json!({"tools":[{"type":"function","function":{"name":"weather","parameters":
            {"required":["city","days"],"properties":{"city":{"type":"string"},"days":{"type":"integer"}}}}}],
            "messages":[{"role":"user","content":"use tool weather"}]}),
        );
        assert_eq!(a.calls[0].arguments, r#"{"city":"mock","days":1}"#);
    }

    #[test]
    fn a_tool_result_is_answered_in_text() {
        let a = answer(
            &json!({"messages":[{"role":"user","content":"[[mock tool=x]]"},
            {"role":"tool","content":"hi"}]}),
        );
        assert!(a.calls.is_empty());
        assert_eq!(a.text.whole(), "done: hi");
        assert_eq!(a.tokens.output, 2);
    }

    #[test]
    fn pieces_respect_characters() {
        let text = "aé日本語x";
        assert_eq!(split(text).collect::<String>(), text);
        assert!(split(text).all(|p| p.len() >= 4 || text.ends_with(p)));
    }
}
