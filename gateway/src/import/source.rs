//! The source as a tree that knows which of its values were read.
//!
//! Promise: a value counts as read only when it was asked for in the type it
//! has; whatever is left over ends in a note.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, StrInput};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{ImportError, Note};

/// Deepest nesting that is followed.
const MAX_DEPTH: usize = 100;

/// Most values that are followed: aliases can multiply a small text.
const MAX_VALUES: usize = 1_000_000;

/// One value of the source.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) at: At,
    pub(super) value: Value,
    seen: Cell<bool>,
}

/// Where a value stands.
#[derive(Clone, Debug, Default)]
pub(super) struct At {
    path: String,
    /// Position in the source, counted in values.
    order: usize,
}

impl At {
    #[cfg(test)]
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}

#[derive(Clone, Debug)]
pub(super) enum Value<T = Node> {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<T>),
    Map(Vec<(String, T)>),
}

/// A value before it knows where it stands.
#[derive(Clone, Debug)]
struct Bare(Value<Bare>);

impl Node {
    fn root(bare: Bare) -> Result<Self, ImportError> {
        let mut count = 0;
        match bare.0 {
            Value::Map(_) => Ok(Node::place(bare, String::new(), &mut count)),
            Value::Null => {
                let empty = Bare(Value::Map(Vec::new()));
                Ok(Node::place(empty, String::new(), &mut count))
            }
            _ => Err(ImportError::NoMapping),
        }
    }

    fn place(bare: Bare, path: String, count: &mut usize) -> Self {
        *count += 1;
        let order = *count;
        let value = match bare.0 {
            Value::Null => Value::Null,
            Value::Bool(value) => Value::Bool(value),
            Value::Number(text) => Value::Number(text),
            Value::Text(text) => Value::Text(text),
            Value::List(items) => {
                let items = items.into_iter().enumerate();
                let placed =
                    items.map(|(index, item)| Node::place(item, format!("{path}[{index}]"), count));
                Value::List(placed.collect())
            }
            Value::Map(entries) => {
                let dot = if path.is_empty() { "" } else { "." };
                let entries = entries.into_iter();
                let placed = entries.map(|(key, value)| {
                    let node = Node::place(value, format!("{path}{dot}{key}"), count);
                    (key, node)
                });
                Value::Map(placed.collect())
            }
        };
        Node {
            at: At { path, order },
            value,
            seen: Cell::new(false),
        }
    }

    /// The field `name`; a field without a value is none.
    pub(super) fn field(&self, name: &str) -> Option<&Node> {
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let (_, node) = entries.iter().find(|(key, _)| key == name)?;
        if matches!(node.value, Value::Null) {
            node.seen.set(true);
            return None;
        }
        Some(node)
    }

    /// This value as text.
    pub(super) fn as_text(&self) -> Option<&str> {
        let Value::Text(text) = &self.value else {
            return None;
        };
        self.seen.set(true);
        Some(text)
    }

    /// This value as a number, in the digits it was written in.
    pub(super) fn as_number(&self) -> Option<&str> {
        match &self.value {
            Value::Number(text) => {
                self.seen.set(true);
                Some(text)
            }
            Value::Text(text) if text.trim().parse::<f64>().is_ok_and(f64::is_finite) => {
                self.seen.set(true);
                Some(text.trim())
            }
            _ => None,
        }
    }

    /// The text of a field, which does not count as read by that.
    pub(super) fn peek(&self, name: &str) -> Option<&str> {
        match &self.field(name)?.value {
            Value::Text(text) => Some(text),
            Value::Number(text) => Some(text),
            _ => None,
        }
    }

    /// Counts the fields as read.
    pub(super) fn see(&self, names: &[&str]) {
        let fields = names.iter().filter_map(|name| self.field(name));
        fields.for_each(Node::see_all);
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_text()
    }

    pub(super) fn number(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_number()
    }

    /// A whole number that is not negative.
    pub(super) fn whole(&self, name: &str) -> Option<u64> {
        let node = self.field(name)?;
        let number = node.as_number()?.parse();
        if number.is_err() {
            node.seen.set(false);
        }
        number.ok()
    }

    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        let node = self.field(name)?;
        let Value::Bool(value) = node.value else {
            return None;
        };
        node.seen.set(true);
        Some(value)
    }

    /// The items of a list; none when it is no list.
    pub(super) fn as_items(&self) -> &[Node] {
        let Value::List(items) = &self.value else {
            return &[];
        };
        self.seen.set(true);
        items
    }

    pub(super) fn items(&self, name: &str) -> &[Node] {
        self.field(name).map_or(&[], Node::as_items)
    }

    /// The fields of a mapping; none when it is no mapping.
    pub(super) fn as_entries(&self) -> &[(String, Node)] {
        let Value::Map(entries) = &self.value else {
            return &[];
        };
        self.seen.set(true);
        entries
    }

    pub(super) fn entries(&self, name: &str) -> &[(String, Node)] {
        self.field(name).map_or(&[], Node::as_entries)
    }

    /// A list of texts; `None` when there is no list.
    pub(super) fn texts(&self, name: &str) -> Option<Vec<&str>> {
        let node = self.field(name)?;
        let Value::List(_) = node.value else {
            return None;
        };
        Some(node.as_items().iter().filter_map(Node::as_text).collect())
    }

    /// Counts as read with all that is below.
    pub(super) fn see_all(&self) {
        self.seen.set(true);
        match &self.value {
            Value::List(items) => items.iter().for_each(Node::see_all),
            Value::Map(entries) => entries.iter().for_each(|(_, node)| node.see_all()),
            _ => {}
        }
    }

    /// Whether nothing of it was read.
    fn untouched(&self) -> bool {
        let below = match &self.value {
            Value::List(items) => items.iter().all(Node::untouched),
            Value::Map(entries) => entries.iter().all(|(_, node)| node.untouched()),
            _ => true,
        };
        below && !self.seen.get()
    }

    /// Shows every part that was not read, as large as possible.
    fn each_unread<'a>(&'a self, show: &mut impl FnMut(&'a Node)) {
        if self.untouched() && !self.at.path.is_empty() {
            show(self);
            return;
        }
        match &self.value {
            Value::List(items) => items.iter().for_each(|item| item.each_unread(show)),
            Value::Map(entries) => entries.iter().for_each(|(_, node)| node.each_unread(show)),
            _ => {}
        }
    }
}

/// The notes so far.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<(usize, Note)>);

impl Notes {
    /// What became of a value and all that is below it.
    pub(super) fn add(&mut self, node: &Node, why: impl Into<String>) {
        node.see_all();
        self.at(&node.at, why);
    }

    /// Something worth knowing of a value that is used.
    pub(super) fn at(&mut self, at: &At, why: impl Into<String>) {
        let path = match at.path.is_empty() {
            true => "(the whole file)".to_owned(),
            false => at.path.clone(),
        };
        let why = why.into();
        let note = (at.order, Note { path, why });
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    /// Notes whatever was not read.
    pub(super) fn unread(&mut self, root: &Node, reason: impl Fn(&str) -> &'static str) {
        let mut left = Vec::new();
        root.each_unread(&mut |node| left.push(node));
        for node in left {
            let why = reason(&node.at.path);
            self.at(&node.at, why);
        }
    }

    pub(super) fn in_order(mut self) -> Vec<Note> {
        self.0.sort_by_key(|(order, _)| *order);
        self.0.into_iter().map(|(_, note)| note).collect()
    }
}

// === JSON ===

/// Reads JSON; numbers keep their digits.
pub(super) fn json(text: &str) -> Result<Node, ImportError> {
    let raw: &RawValue = serde_json::from_str(text)?;
    Node::root(bare_json(raw)?)
}

fn bare_json(raw: &RawValue) -> Result<Bare, serde_json::Error> {
    let text = raw.get();
    Ok(Bare(match text.as_bytes().first() {
        Some(b'{') => {
            let Fields(fields) = serde_json::from_str(text)?;
            let entries = fields
                .into_iter()
                .map(|(key, raw)| Ok((key, bare_json(raw)?)));
            Value::Map(entries.collect::<Result<_, serde_json::Error>>()?)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            let items = items.into_iter().map(bare_json);
            Value::List(items.collect::<Result<_, _>>()?)
        }
        Some(b'"') => Value::Text(serde_json::from_str(text)?),
        Some(b't' | b'f') => Value::Bool(serde_json::from_str(text)?),
        Some(b'n') | None => Value::Null,
        Some(_) => Value::Number(text.to_owned()),
    }))
}

/// The fields of a JSON object in their order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;

        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }

        deserializer.deserialize_map(InOrder)
    }
}

// === YAML ===

/// Reads YAML; numbers keep their digits, anchors and merge keys are followed.
pub(super) fn yaml(text: &str) -> Result<Node, ImportError> {
    let mut builder = Builder::default();
    let mut parser = Parser::new(StrInput::new(text));
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| ImportError::Yaml {
            line: error.marker().line(),
            message: format!("not valid YAML: {}", error.info()),
        })?;
        let line = span.start.line();
        let taken = builder.take(event);
        taken.map_err(|message| ImportError::Yaml { line, message })?;
    }
    Node::root(builder.root.unwrap_or(Bare(Value::Null)))
}

/// A collection that is still open, with the number of its anchor.
enum Open {
    List(usize, Vec<Bare>),
    Map(usize, Vec<(String, Bare)>, Option<String>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Bare>,
    root: Option<Bare>,
    values: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err("a second document in one file is not supported".to_owned());
            }
            Event::Alias(number) => {
                let known = self.anchors.get(&number).cloned();
                let value = known.ok_or("an alias inside of its own anchor")?;
                self.add(0, value)?;
            }
            Event::Scalar(text, style, anchor, _) => match self.open.last_mut() {
                Some(Open::Map(_, _, pending @ None)) => *pending = Some(text.into_owned()),
                _ => self.add(anchor, Bare(typed(&text, style)))?,
            },
            Event::SequenceStart(anchor, _) => self.open.push(Open::List(anchor, Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.open.push(Open::Map(anchor, Vec::new(), None));
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(anchor, items)) => self.add(anchor, Bare(Value::List(items)))?,
                Some(Open::Map(anchor, entries, _)) => {
                    self.add(anchor, Bare(Value::Map(merged(entries))))?;
                }
                None => {}
            },
            _ => {}
        }
        match self.open.len() > MAX_DEPTH {
            true => Err(format!("nested deeper than {MAX_DEPTH} levels")),
            false => Ok(()),
        }
    }

    fn add(&mut self, anchor: usize, value: Bare) -> Result<(), String> {
        self.values += value.count();
        if self.values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(value),
            Some(Open::List(_, items)) => items.push(value),
            Some(Open::Map(_, entries, pending)) => {
                let key = pending.take().ok_or("a field's name must be plain text")?;
                if key != "<<" && entries.iter().any(|(known, _)| *known == key) {
                    return Err(format!("`{key}` stands twice in one mapping"));
                }
                entries.push((key, value));
            }
        }
        Ok(())
    }
}

impl Bare {
    fn count(&self) -> usize {
        match &self.0 {
            Value::List(items) => 1 + items.iter().map(Bare::count).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|(_, item)| item.count()).sum::<usize>(),
            _ => 1,
        }
    }
}

/// Puts the fields of `<<` behind those that stand beside it.
fn merged(entries: Vec<(String, Bare)>) -> Vec<(String, Bare)> {
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == "<<");
    for (_, merge) in merges {
        let sources = match merge.0 {
            Value::List(sources) => sources,
            one => vec![Bare(one)],
        };
        for source in sources {
            let Value::Map(fields) = source.0 else {
                continue;
            };
            for (key, value) in fields {
                if own.iter().all(|(known, _)| *known != key) {
                    own.push((key, value));
                }
            }
        }
    }
    own
}

/// What a scalar means by YAML 1.2's core schema.
fn typed(text: &str, style: ScalarStyle) -> Value<Bare> {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    match Scalar::parse_from_cow(text.into()) {
        _ if text.is_empty() => Value::Null,
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(value),
        Scalar::Integer(_) => Value::Number(text.to_owned()),
        Scalar::FloatingPoint(value) if value.is_finite() => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}
