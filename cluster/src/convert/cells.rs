//! Cells on a link: a counter's text goes over it once, then its number.
//!
//! Owner: each half of a link keeps its own table. The sender decides when it is full and begins
//! anew; the receiver refuses what no sender would do.

use std::collections::HashMap;
use std::mem::take;
use std::sync::Arc;

use policy::Timestamp;
use proto::v1 as wire;

use super::FrameError;
use super::values::{origin_from, origin_to};
use crate::message::{BATCH_CELLS, CellBatch, WireCell};
use crate::origin::Origin;

/// Most texts of a link.
pub(super) const MOST_TEXTS: usize = 65_536;

/// Most bytes of all texts of a link, as the sender keeps it.
pub(super) const TEXT_BYTES: usize = 8 << 20;

/// The receiver's limit: that, and a batch that does not fit.
const READ_BYTES: usize = 4 * TEXT_BYTES;

/// Longest text of a counter: names of users come from requests' heads.
pub(super) const LONGEST_TEXT: usize = 16 << 10;

/// Bytes of cells and texts after which a batch is cut, so that it stays well below a frame's limit.
const PART_BYTES: usize = 1 << 20;

/// Most bytes that a cell's numbers take.
const CELL_BYTES: usize = 64;

/// The first protocol whose cells have holds.
const HOLDS_SINCE: u8 = 2;

/// Texts that the receiver knows.
#[derive(Debug, Default)]
pub(super) struct Texts {
    numbers: HashMap<Arc<str>, u32>,
    bytes: usize,
    /// Whether the next batch tells the receiver to forget.
    begin_anew: bool,
}

/// Texts that the sender named.
#[derive(Debug, Default)]
pub(super) struct Read {
    texts: Vec<Option<Arc<str>>>,
    bytes: usize,
}

// === impl Texts ===

impl Texts {
    /// The batch in parts of a bounded size; at least one. Each part has everything up to its last
    /// cell, as cells come in the order of their versions, but never more than the batch.
    pub(super) fn write(&mut self, mut batch: CellBatch, protocol: u8) -> Vec<wire::CellBatch> {
        batch.cells.retain(|cell| is_sendable(&cell.counter));
        let more: usize = batch.cells.iter().map(|cell| cell.counter.len()).sum();
        let full =
            self.numbers.len() + batch.cells.len() > MOST_TEXTS || self.bytes + more > TEXT_BYTES;
        if full && !self.numbers.is_empty() {
            *self = Self {
                begin_anew: true,
                ..Self::default()
            };
        }
        let mut parts = Vec::new();
        let (mut part, mut bytes) = (self.begin(batch.origin, batch.from_ver, batch.head), 0);
        for cell in batch.cells {
            // Only the last part is as far as the batch: later cells may stand for earlier ones.
            let has = cell
                .ver
                .min(batch.to_ver.saturating_sub(1))
                .max(part.to_ver);
            if bytes >= PART_BYTES {
                let next = self.begin(batch.origin, part.to_ver, batch.head);
                parts.push(std::mem::replace(&mut part, next));
                bytes = 0;
            }
            bytes += CELL_BYTES + self.add(&mut part, cell, protocol);
            part.to_ver = has;
        }
        part.to_ver = batch.to_ver;
        parts.push(part);
        parts
    }

    fn begin(&mut self, origin: Origin, from_ver: u64, head: u64) -> wire::CellBatch {
        wire::CellBatch {
            origin: Some(origin_to(origin)),
            from_ver,
            to_ver: from_ver,
            head,
            texts: Vec::new(),
            cells: Vec::new(),
            texts_begin_anew: take(&mut self.begin_anew),
        }
    }

    /// Adds a cell; returns the bytes of the text that it took.
    fn add(&mut self, part: &mut wire::CellBatch, cell: WireCell, protocol: u8) -> usize {
        let known = self.numbers.get(&cell.counter).copied();
        let (counter, took) = match known {
            Some(number) => (number, 0),
            None => {
                let (number, length) = (self.numbers.len() as u32, cell.counter.len());
                part.texts.push(wire::CounterText {
                    number,
                    text: cell.counter.to_string(),
                });
                self.numbers.insert(cell.counter, number);
                self.bytes += length;
                (number, length)
            }
        };
        part.cells.push(wire::Cell {
            counter,
            epoch: cell.epoch,
            ver: cell.ver,
            used: cell.used,
            held: if protocol < HOLDS_SINCE { 0 } else { cell.held },
            expires_at: cell.expires_at.0,
        });
        took
    }
}

/// The other end refuses what is longer, and the link with it.
fn is_sendable(counter: &str) -> bool {
    let fits = counter.len() <= LONGEST_TEXT;
    if !fits {
        tracing::error!(
            bytes = counter.len(),
            "a counter's name is too long to be told to others"
        );
    }
    fits
}

// === impl Read ===

impl Read {
    pub(super) fn read(&mut self, batch: wire::CellBatch) -> Result<CellBatch, FrameError> {
        let origin = origin_from(batch.origin)?;
        if batch.cells.len() > BATCH_CELLS {
            return Err(FrameError::Many("cells"));
        }
        if batch.texts_begin_anew {
            *self = Self::default();
        }
        for text in batch.texts {
            self.learn(text)?;
        }
        let cell = |cell: wire::Cell| {
            let text = self.texts.get(cell.counter as usize);
            Ok(WireCell {
                counter: text.cloned().flatten().ok_or(FrameError::UnknownText)?,
                epoch: cell.epoch,
                ver: cell.ver,
                used: cell.used,
                held: cell.held,
                expires_at: Timestamp(cell.expires_at),
            })
        };
        Ok(CellBatch {
            origin,
            from_ver: batch.from_ver,
            to_ver: batch.to_ver,
            head: batch.head,
            cells: batch
                .cells
                .into_iter()
                .map(cell)
                .collect::<Result<_, _>>()?,
        })
    }

    fn learn(&mut self, text: wire::CounterText) -> Result<(), FrameError> {
        let number = text.number as usize;
        if number >= MOST_TEXTS {
            return Err(FrameError::Range("number of a counter"));
        }
        if text.text.len() > LONGEST_TEXT {
            return Err(FrameError::Length("text of a counter"));
        }
        if self.texts.len() <= number {
            self.texts.resize(number + 1, None);
        }
        let old = self.texts[number].as_ref().map_or(0, |old| old.len());
        self.bytes = self.bytes - old + text.text.len();
        if self.bytes > READ_BYTES {
            return Err(FrameError::Many("texts of counters"));
        }
        self.texts[number] = Some(text.text.into());
        Ok(())
    }
}
