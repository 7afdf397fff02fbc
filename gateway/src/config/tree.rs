//! YAML as a tree in which every value knows its file and line.
//!
//! Promise: what YAML would silently decide is refused here with its line:
//! a field that stands twice, anchors and aliases, merge keys, tags, a second
//! document, nesting beyond `MAX_DEPTH`. Numbers keep their text, so money
//! never passes through a float.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use saphyr::Scalar;
use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

use super::problem::{FieldPath, Problem, Step};

/// Deepest nesting that is read; the format itself needs less than ten.
const MAX_DEPTH: usize = 64;

/// One value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) file: Arc<Path>,
    /// From 1; 0 for what the API made, whose `file` names the entity.
    pub(crate) line: u32,
    pub(crate) value: Value,
}

/// What stands there.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One field of a mapping.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    /// Where the field's name stands.
    pub(crate) line: u32,
    pub(crate) node: Node,
}

impl Node {
    /// The field `name`, when this is a mapping that has it.
    pub(crate) fn entry(&self, name: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == name),
            _ => None,
        }
    }

    /// A problem with the field at `path`; where that does not exist, at the
    /// deepest part of it that does.
    pub(crate) fn problem(&self, path: &FieldPath, message: impl Into<String>) -> Problem {
        let (file, line) = self.place(path);
        let path = match (line, self.line) {
            (0, 0) => path.pointer(),
            (0, _) => path.within_item().pointer(),
            _ => self.within_file(path).to_string(),
        };
        Problem {
            file: file.to_path_buf(),
            line,
            path,
            message: message.into(),
        }
    }

    /// File and line of the field at `path`: of its name, where it has one.
    pub(crate) fn place(&self, path: &FieldPath) -> (Arc<Path>, u32) {
        let mut node = self;
        let mut line = node.line;
        for step in path.steps() {
            let Some((below, at)) = node.below(step) else {
                break;
            };
            (node, line) = (below, at);
        }
        (Arc::clone(&node.file), line)
    }

    /// Whether there is a field at `path`.
    pub(crate) fn has(&self, path: &FieldPath) -> bool {
        path.steps()
            .iter()
            .try_fold(self, |node, step| node.below(step).map(|(below, _)| below))
            .is_some()
    }

    /// Takes the field at `path` out of its mapping.
    pub(crate) fn remove(&mut self, path: &FieldPath) {
        let Some((Step::Key(name), above)) = path.steps().split_last() else {
            return;
        };
        let parent = above.iter().try_fold(self, |node, step| match step {
            Step::Key(name) => match &mut node.value {
                Value::Map(entries) => {
                    let entry = entries.iter_mut().find(|entry| entry.key == *name);
                    entry.map(|entry| &mut entry.node)
                }
                _ => None,
            },
            Step::Index(index) => match &mut node.value {
                Value::List(items) => items.get_mut(*index),
                _ => None,
            },
        });
        if let Some(Value::Map(entries)) = parent.map(|node| &mut node.value) {
            entries.retain(|entry| entry.key != *name);
        }
    }

    /// Shows every text value, fields' names excepted.
    pub(crate) fn for_each_text(&self, see: &mut impl FnMut(&str)) {
        match &self.value {
            Value::Text(text) => see(text),
            Value::List(items) => items.iter().for_each(|item| item.for_each_text(see)),
            Value::Map(entries) => {
                entries
                    .iter()
                    .for_each(|entry| entry.node.for_each_text(see));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// One step down, and the line where that stands.
    fn below(&self, step: &Step) -> Option<(&Node, u32)> {
        match (step, &self.value) {
            (Step::Key(name), _) => self.entry(name).map(|entry| (&entry.node, entry.line)),
            (Step::Index(index), Value::List(items)) => {
                items.get(*index).map(|item| (item, item.line))
            }
            _ => None,
        }
    }

    /// `path` with its list position counted within the file that holds the
    /// item: in a folder, top-level lists are joined from several files.
    fn within_file(&self, path: &FieldPath) -> FieldPath {
        let [Step::Key(section), Step::Index(index), rest @ ..] = path.steps() else {
            return path.clone();
        };
        let Some(Value::List(items)) = self.entry(section).map(|entry| &entry.node.value) else {
            return path.clone();
        };
        let Some(item) = items.get(*index) else {
            return path.clone();
        };
        let own = items[..*index]
            .iter()
            .filter(|other| other.file == item.file)
            .count();
        let start = FieldPath::root().key(section).index(own);
        rest.iter().fold(start, |path, step| match step {
            Step::Key(name) => path.key(name),
            Step::Index(index) => path.index(*index),
        })
    }

    /// The value as JSON, for judging it by the schema. Numbers beyond 64 bits
    /// lose digits here, and only here.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match &self.value {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(text) => number(text).unwrap_or_else(|| Json::String(text.clone())),
            Value::Text(text) => Json::String(text.clone()),
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.node.to_json()))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        }
    }
}

/// A YAML number as JSON; infinities are none.
pub(crate) fn number(text: &str) -> Option<serde_json::Value> {
    if let Ok(value) = text.parse::<u64>() {
        return Some(value.into());
    }
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Integer(value) => Some(value.into()),
        Scalar::FloatingPoint(value) => {
            serde_json::Number::from_f64(value.into_inner()).map(Into::into)
        }
        _ => None,
    }
}

/// Reads one file's text. `Err` holds everything that is wrong with it.
pub(crate) fn parse(file: &Arc<Path>, text: &str) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder::new(Arc::clone(file));
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new(StrInput::new(text));
    while let Some(event) = parser.next_event() {
        match event {
            Ok((Event::StreamEnd, _)) => break,
            Ok((event, span)) => {
                if !builder.take(event, span) {
                    break;
                }
            }
            Err(error) => {
                let line = line_of(error.marker().line());
                builder.report(line, format!("not valid YAML: {}", error.info()));
                break;
            }
        }
    }
    builder.finish()
}

fn line_of(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX).max(1)
}

/// A collection that is still open.
enum Open {
    List {
        line: u32,
        items: Vec<Node>,
    },
    Map {
        line: u32,
        entries: Vec<Entry>,
        /// Lines of the names so far.
        seen: HashMap<String, u32>,
        /// A name whose value is still to come.
        pending: Option<(String, u32)>,
    },
}

/// Turns the parser's events into the tree.
struct Builder {
    file: Arc<Path>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    problems: Vec<Problem>,
}

impl Builder {
    fn new(file: Arc<Path>) -> Self {
        Builder {
            file,
            open: Vec::new(),
            root: None,
            documents: 0,
            problems: Vec::new(),
        }
    }

    /// Takes one event; `false` when reading on makes no sense.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let line = line_of(span.start.line());
        match event {
            Event::DocumentStart(_) => return self.start_document(line),
            Event::Alias(_) => {
                self.report(
                    line,
                    "aliases (`*name`) are not supported: write the value out",
                );
                self.add(line, Value::Null);
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(line, anchor, tag.as_deref());
                self.scalar(line, &text, style);
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.as_deref());
                self.open.push(Open::List {
                    line,
                    items: Vec::new(),
                });
                return self.depth_holds(line);
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(line, anchor, tag.as_deref());
                self.open.push(Open::Map {
                    line,
                    entries: Vec::new(),
                    seen: HashMap::new(),
                    pending: None,
                });
                return self.depth_holds(line);
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        true
    }

    fn start_document(&mut self, line: u32) -> bool {
        self.documents += 1;
        if self.documents > 1 {
            self.report(
                line,
                "a second document (`---`) in one file is not supported",
            );
        }
        self.documents == 1
    }

    fn depth_holds(&mut self, line: u32) -> bool {
        let holds = self.open.len() <= MAX_DEPTH;
        if !holds {
            self.report(line, format!("nested deeper than {MAX_DEPTH} levels"));
        }
        holds
    }

    fn refuse_extras(&mut self, line: u32, anchor: usize, tag: Option<&Tag>) {
        if anchor != 0 {
            self.report(
                line,
                "anchors (`&name`) are not supported: write the value out",
            );
        }
        if tag.is_some() {
            self.report(line, "tags (`!name`) are not supported");
        }
    }

    fn scalar(&mut self, line: u32, text: &str, style: ScalarStyle) {
        if let Some(Open::Map {
            pending: pending @ None,
            seen,
            ..
        }) = self.open.last_mut()
        {
            *pending = Some((text.to_owned(), line));
            let earlier = seen.get(text).copied();
            seen.entry(text.to_owned()).or_insert(line);
            if text == "<<" {
                self.report(
                    line,
                    "merge keys (`<<`) are not supported: write the fields out",
                );
            } else if let Some(earlier) = earlier {
                let message =
                    format!("`{text}` stands twice in one mapping, first in line {earlier}");
                self.report(line, message);
            }
            return;
        }
        self.add(line, typed(text, style));
    }

    fn close(&mut self) {
        match self.open.pop() {
            Some(Open::List { line, items }) => self.add(line, Value::List(items)),
            Some(Open::Map { line, entries, .. }) => self.add(line, Value::Map(entries)),
            None => {}
        }
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, line: u32, value: Value) {
        let node = Node {
            file: Arc::clone(&self.file),
            line,
            value,
        };
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map {
                entries, pending, ..
            }) => match pending.take() {
                Some((key, line)) => {
                    // The first one stays; the second was reported by its name.
                    if key != "<<" && entries.iter().all(|entry| entry.key != key) {
                        entries.push(Entry { key, line, node });
                    }
                }
                None => {
                    self.report(line, "a field's name must be plain text");
                    self.skip_value(line);
                }
            },
        }
    }

    /// What comes next is the value of a name that was refused: it stands
    /// under a name that is dropped.
    fn skip_value(&mut self, line: u32) {
        if let Some(Open::Map { pending, .. }) = self.open.last_mut() {
            *pending = Some(("<<".to_owned(), line));
        }
    }

    fn report(&mut self, line: u32, message: impl Into<String>) {
        let mut path = FieldPath::root();
        for open in &self.open {
            path = match open {
                Open::List { items, .. } => path.index(items.len()),
                Open::Map {
                    pending: Some((name, _)),
                    ..
                } => path.key(name),
                Open::Map { .. } => path,
            };
        }
        self.problems.push(Problem {
            file: self.file.to_path_buf(),
            line,
            path: path.to_string(),
            message: message.into(),
        });
    }

    fn finish(mut self) -> Result<Node, Vec<Problem>> {
        let root = self.root.take();
        if self.problems.is_empty() {
            match root {
                None => self.report(1, "the file is empty"),
                Some(Node {
                    value: Value::Null, ..
                }) => self.report(1, "the file is empty"),
                Some(root) => return Ok(root),
            }
        }
        Err(self.problems)
    }
}

/// What an untagged scalar means by YAML 1.2's core schema.
fn typed(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    if text.is_empty() {
        return Value::Null;
    }
    match Scalar::parse_from_cow(text.into()) {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(value),
        Scalar::Integer(_) => Value::Number(text.to_owned()),
        Scalar::FloatingPoint(value) if value.is_finite() => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}
