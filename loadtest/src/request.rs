//! What the mock reads out of a request body, for all dialects.
//!
//! Input tokens are `ceil(bytes / 4)`, where bytes is the UTF-8 length of every text the model
//! would read: message contents, system prompt, instructions, prompt, input, tool results and tool
//! call arguments (not tool declarations). Arrays of token numbers count one token each.

use serde_json::Value;

use crate::control::{DirectiveProblem, Directives, bracketed};

/// The facts of one request.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    /// Without the directives after `?`.
    pub model: String,
    pub stream: bool,
    /// `stream_options.include_usage`.
    pub include_usage: bool,
    pub max_output: Option<u64>,
    pub choices: u64,
    /// Text of the last user message that carries no tool result.
    pub user_text: String,
    /// The text of the tool result the request ends in.
    pub tool_result: Option<String>,
    pub tools: Vec<Tool>,
    pub input_tokens: u64,
}

/// A tool as the request declares it.
#[derive(Debug, Clone)]
pub(crate) struct Tool {
    pub name: String,
    /// `function`, `custom`, `local_shell`, …
    pub kind: String,
    pub schema: Value,
}

impl Ask {
    /// Reads `body`; directives found in it are added to `directives`.
    pub(crate) fn read(
        body: &Value,
        directives: &mut Directives,
    ) -> Result<Self, DirectiveProblem> {
        let mut ask = Self {
            stream: body["stream"].as_bool().unwrap_or(false),
            include_usage: body["stream_options"]["include_usage"] == true,
            choices: body["n"].as_u64().unwrap_or(1).clamp(1, 128),
            max_output: ["max_completion_tokens", "max_output_tokens", "max_tokens"]
                .iter()
                .find_map(|name| body[*name].as_u64()),
            tools: body["tools"]
                .as_array()
                .map(|t| read_tools(t))
                .unwrap_or_default(),
            ..Self::default()
        };
        ask.read_conversation(body);
        ask.input_tokens = input_tokens(body);
        let model = body["model"].as_str().unwrap_or_default();
        if let Some((name, suffix)) = model.split_once('?') {
            directives.apply(suffix)?;
            name.clone_into(&mut ask.model);
        } else {
            model.clone_into(&mut ask.model);
        }
        if let Some(text) = body["metadata"]["mock"].as_str() {
            directives.apply(text)?;
        }
        if let Some(text) = body["user"].as_str().and_then(|u| u.strip_prefix("mock ")) {
            directives.apply(text)?;
        }
        if let Some(text) = bracketed(&ask.user_text) {
            directives.apply(text)?;
        }
        Ok(ask)
    }

    fn read_conversation(&mut self, body: &Value) {
        if let Some(prompt) = body.get("prompt") {
            self.user_text = text_of(prompt);
            return;
        }
        if let Some(text) = body["input"].as_str() {
            text.clone_into(&mut self.user_text);
            return;
        }
        let items = body["messages"]
            .as_array()
            .or_else(|| body["input"].as_array());
        let Some(items) = items else { return };
        self.tool_result = items.iter().rev().find_map(ends_the_walk).flatten();
        self.user_text = items
            .iter()
            .rev()
            .find(|item| item["role"] == "user" && result_of(item).is_none())
            .map(|item| text_of(&item["content"]))
            .unwrap_or_default();
    }

    /// The declared tool of this name.
    pub(crate) fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

/// Walks from the last item to the first: `Some(Some(text))` at a tool result, `Some(None)` at
/// anything a model would have to answer or has said, `None` to look further (system notes that
/// clients append after a tool result).
fn ends_the_walk(item: &Value) -> Option<Option<String>> {
    if let Some(result) = result_of(item) {
        return Some(Some(result));
    }
    match item["role"].as_str() {
        Some("system" | "developer") => None,
        _ => Some(None),
    }
}

/// The text of a tool result, in whichever dialect it is written.
fn result_of(item: &Value) -> Option<String> {
    if item["role"] == "tool" {
        return Some(text_of(&item["content"]));
    }
    if item["type"]
        .as_str()
        .is_some_and(|t| t.ends_with("_call_output"))
    {
        return Some(text_of(&item["output"]));
    }
    let blocks = item["content"].as_array()?;
    let last = blocks
        .iter()
        .rev()
        .find(|block| block["type"] == "tool_result")?;
    Some(text_of(&last["content"]))
}

/// All text of a content value: a string, or blocks with `text`.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<String> = parts
                .iter()
                .map(|part| text_of(part.get("text").unwrap_or(part)))
                .filter(|text| !text.is_empty())
                .collect();
            texts.join("\n")
        }
        Value::Object(map) => map
            .get("content")
            .or_else(|| map.get("output"))
            .map(text_of)
            .unwrap_or_default(),
        _ => String::new(),
    }
}

fn read_tools(tools: &[Value]) -> Vec<Tool> {
    tools
        .iter()
        .map(|tool| {
            let function = tool.get("function").unwrap_or(tool);
            let kind = tool["type"].as_str().unwrap_or("function").to_owned();
            Tool {
                name: function["name"].as_str().unwrap_or(&kind).to_owned(),
                schema: function
                    .get("parameters")
                    .or_else(|| function.get("input_schema"))
                    .cloned()
                    .unwrap_or(Value::Null),
                kind,
            }
        })
        .collect()
}

const TEXT_FIELDS: [&str; 6] = [
    "messages",
    "system",
    "instructions",
    "prompt",
    "input",
    "query",
];
const INNER_TEXT: [&str; 7] = [
    "text",
    "content",
    "output",
    "arguments",
    "thinking",
    "input",
    "tool_calls",
];

/// `ceil(text bytes / 4)` plus one for every number in an array of tokens.
fn input_tokens(body: &Value) -> u64 {
    let mut size = TextSize::default();
    for field in TEXT_FIELDS {
        if let Some(value) = body.get(field) {
            size.add(value);
        }
    }
    size.bytes.div_ceil(4) + size.numbers
}

#[derive(Default)]
struct TextSize {
    bytes: u64,
    numbers: u64,
}

impl TextSize {
    fn add(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.bytes += text.len() as u64,
            Value::Number(_) => self.numbers += 1,
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(map) => {
                for field in INNER_TEXT {
                    if let Some(inner) = map.get(field) {
                        self.add(inner);
                    }
                }
                if let Some(function) = map.get("function") {
                    self.add(function);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(body: &Value) -> (Ask, Directives) {
        let mut directives = Directives::default();
        let ask = Ask::read(body, &mut directives).unwrap();
        (ask, directives)
    }

    #[test]
    fn chat_counts_text_bytes_by_four() {
        let (ask, _) = ask(&json!({"model":"m","messages":[
            {"role":"system","content":"abcd"},{"role":"user","content":[{"type":"text","text":"abcde"}]}]}));
        assert_eq!(ask.input_tokens, 3);
        assert_eq!(ask.user_text, "abcde");
        assert_eq!(ask.tool_result, None);
    }

    #[test]
    fn directives_come_from_model_and_message_and_the_suffix_is_cut() {
        let (ask, directives) = ask(&json!({"model":"gpt?tokens=2&ttft=9","messages":[
            {"role":"user","content":"[[mock tokens=3]]"}]}));
        assert_eq!(ask.model, "gpt");
        assert_eq!(directives.shape.tokens, Some(3));
        assert_eq!(directives.shape.ttft.unwrap().as_millis(), 9);
    }

    #[test]
    fn tool_results_of_all_dialects_are_seen() {
        let (chat, _) = ask(
            &json!({"model":"m","messages":[{"role":"user","content":"q"},
            {"role":"assistant","tool_calls":[]},{"role":"tool","content":"r1"}]}),
        );
        assert_eq!(chat.tool_result.as_deref(), Some("r1"));
        assert_eq!(chat.user_text, "q");
        let (messages, _) = ask(
            &json!({"model":"m","messages":[{"role":"user","content":"q"},
            {"role":"user","content":[{"type":"tool_result","content":[{"type":"text","text":"r2"}]},
                                      {"type":"text","text":"<system-reminder>"}]}]}),
        );
        assert_eq!(messages.tool_result.as_deref(), Some("r2"));
        assert_eq!(messages.user_text, "q");
        let (responses, _) = ask(&json!({"model":"m","input":[{"role":"user","content":"q"},
            {"type":"function_call","arguments":"{}"},{"type":"function_call_output","output":"r3"}]}));
        assert_eq!(responses.tool_result.as_deref(), Some("r3"));
    }

    #[test]
    fn a_new_question_after_a_tool_result_is_a_question() {
        let (ask, _) = ask(
            &json!({"model":"m","messages":[{"role":"tool","content":"r"},
            {"role":"assistant","content":"done"},{"role":"user","content":"next"}]}),
        );
        assert_eq!(ask.tool_result, None);
    }

    #[test]
    fn token_arrays_count_one_each() {
        let (ask, _) = ask(&json!({"model":"m","input":[[1,2,3],[4]]}));
        assert_eq!(ask.input_tokens, 4);
    }
}
