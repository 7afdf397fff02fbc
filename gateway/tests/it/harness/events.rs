//! Server-sent events as a client reads them, piece by piece.

use super::client::{Connection, find};

/// One event or comment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Event {
    /// The `event:` field.
    pub name: Option<String>,
    /// The `data:` lines, joined.
    pub data: String,
    /// The text of a comment that stood alone.
    pub comment: Option<String>,
}

impl Event {
    fn parse(text: &str) -> Self {
        let mut event = Self::default();
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix(':') {
                event.comment = Some(comment.trim().to_string());
            } else if let Some(name) = line.strip_prefix("event:") {
                event.name = Some(name.trim().to_string());
            } else if let Some(data) = line.strip_prefix("data:") {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data += data.strip_prefix(' ').unwrap_or(data);
            }
        }
        event
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.data).expect("the data of the event is JSON")
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The body's framing ended.
    Clean,
    /// The connection ended first.
    Cut,
}

/// Reads events from a connection whose head has been read.
pub struct Events<'a> {
    connection: &'a mut Connection,
    buffer: Vec<u8>,
    /// Set at the end.
    pub end: Option<End>,
    /// True when some piece ended inside an event.
    pub split: bool,
}

impl<'a> Events<'a> {
    pub fn of(connection: &'a mut Connection) -> Self {
        Self {
            connection,
            buffer: Vec::new(),
            end: None,
            split: false,
        }
    }

    /// The next event or comment; `None` at the end.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(at) = find(&self.buffer, b"\n\n") {
                let text: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Some(Event::parse(&String::from_utf8_lossy(&text)));
            }
            if self.end.is_some() {
                return None;
            }
            match self.connection.piece() {
                Ok(Some(piece)) => {
                    self.split |= !piece.ends_with(b"\n\n");
                    self.buffer.extend(piece);
                }
                Ok(None) => self.end = Some(End::Clean),
                Err(_) => self.end = Some(End::Cut),
            }
        }
    }

    /// The next event that is not a comment.
    pub fn data(&mut self) -> Option<Event> {
        loop {
            let event = self.next()?;
            if !event.data.is_empty() {
                return Some(event);
            }
        }
    }

    /// All remaining events, comments left out.
    pub fn rest(&mut self) -> Vec<Event> {
        let mut all = Vec::new();
        while let Some(event) = self.data() {
            all.push(event);
        }
        all
    }
}
