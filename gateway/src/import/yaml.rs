//! Writing YAML: blocks with comments, short things on one line.

use std::fmt::Display;

/// A value to be written.
#[derive(Clone, Debug)]
pub(super) enum Out {
    /// As it is: numbers, truth values, lengths of time.
    Plain(String),
    /// Quoted where that is needed.
    Text(String),
    /// On one line: `[a, b]`.
    Line(Vec<Out>),
    /// On one line: `{a: b}`.
    Pairs(Vec<(&'static str, Out)>),
    /// One item a line.
    Items(Vec<Out>),
    Block(Block),
    /// Something short with a comment behind it; only as an item.
    Noted(Box<Out>, &'static str),
}

/// The fields of a mapping, one a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Block(Vec<Field>);

#[derive(Clone, Debug)]
struct Field {
    key: &'static str,
    value: Out,
    /// Comment lines above.
    above: Vec<String>,
    /// Comment behind.
    beside: String,
}

pub(super) fn text(text: impl Into<String>) -> Out {
    Out::Text(text.into())
}

pub(super) fn plain(value: impl Display) -> Out {
    Out::Plain(value.to_string())
}

pub(super) fn line<'a>(texts: impl IntoIterator<Item = &'a String>) -> Out {
    Out::Line(texts.into_iter().map(text).collect())
}

impl Block {
    pub(super) fn put(&mut self, key: &'static str, value: Out) -> &mut Self {
        let (above, beside) = (Vec::new(), String::new());
        self.0.push(Field {
            key,
            value,
            above,
            beside,
        });
        self
    }

    /// Puts it only when there is something.
    pub(super) fn put_some(&mut self, key: &'static str, value: Option<Out>) -> &mut Self {
        match value {
            Some(value) => self.put(key, value),
            None => self,
        }
    }

    pub(super) fn put_items(&mut self, key: &'static str, items: Vec<Out>) -> &mut Self {
        match items.is_empty() {
            true => self,
            false => self.put(key, Out::Items(items)),
        }
    }

    /// A comment behind the last field.
    pub(super) fn beside(&mut self, comment: &str) -> &mut Self {
        if let Some(last) = self.0.last_mut() {
            last.beside = one_line(comment);
        }
        self
    }

    /// A comment above the last field.
    pub(super) fn above(&mut self, comment: &str) -> &mut Self {
        if let Some(last) = self.0.last_mut()
            && !comment.trim().is_empty()
        {
            last.above.push(one_line(comment));
        }
        self
    }

    pub(super) fn write(&self) -> String {
        lines_of(self)
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

/// A comment must not end its line.
fn one_line(comment: &str) -> String {
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    comment.trim().chars().map(printable).collect()
}

fn lines_of(block: &Block) -> Vec<String> {
    let mut lines = Vec::new();
    for field in &block.0 {
        lines.extend(field.above.iter().map(|comment| format!("# {comment}")));
        let beside = match field.beside.is_empty() {
            true => String::new(),
            false => format!("  # {}", field.beside),
        };
        let key = field.key;
        let below = match &field.value {
            Out::Items(items) => items.iter().flat_map(item_lines).collect(),
            Out::Block(block) => lines_of(block),
            short => {
                lines.push(format!("{key}: {}{beside}", on_one_line(short)));
                continue;
            }
        };
        lines.push(format!("{key}:{beside}"));
        lines.extend(below.iter().map(|line| format!("  {line}")));
    }
    lines
}

fn item_lines(item: &Out) -> Vec<String> {
    let lines = match item {
        Out::Block(block) => lines_of(block),
        Out::Noted(item, comment) => vec![format!("{}  # {comment}", on_one_line(item))],
        short => vec![on_one_line(short)],
    };
    // Comments on the item stand above it.
    let first = lines.iter().position(|line| !line.starts_with('#'));
    let mark = |(index, line): (usize, String)| match first {
        Some(first) if index < first => line,
        Some(first) if index == first => format!("- {line}"),
        _ => format!("  {line}"),
    };
    lines.into_iter().enumerate().map(mark).collect()
}

fn on_one_line(value: &Out) -> String {
    match value {
        Out::Plain(text) => text.clone(),
        Out::Text(text) => quoted(text),
        Out::Line(items) | Out::Items(items) => {
            let items: Vec<_> = items.iter().map(on_one_line).collect();
            format!("[{}]", items.join(", "))
        }
        Out::Pairs(pairs) => {
            let pairs = pairs.iter();
            let pairs: Vec<_> = pairs
                .map(|(key, value)| format!("{key}: {}", on_one_line(value)))
                .collect();
            format!("{{{}}}", pairs.join(", "))
        }
        Out::Noted(item, _) => on_one_line(item),
        Out::Block(_) => "{}".to_owned(),
    }
}

/// Plain where no reader can take it for anything but text.
fn quoted(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-' | ':');
    let reserved = [
        "true", "false", "null", "yes", "no", "on", "off", "y", "n", ".inf", ".nan",
    ];
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let ends = text.ends_with(|c: char| c.is_ascii_alphanumeric());
    if starts
        && ends
        && text.chars().all(word)
        && !reserved.contains(&text.to_ascii_lowercase().as_str())
    {
        return text.to_owned();
    }
    serde_json::to_string(text).unwrap_or_else(|_| "\"\"".to_owned())
}
