//! Settled cells on the node's own disk, for a start without the store.
//!
//! `cells.log` in `data_dir` begins with the cells as the store had them, each origin's apart; each
//! batch of usage that the store took is appended with what it was charged with and how far its usage
//! file was read. So at any moment the cells are the sum of all lines, plus the usage files from there
//! on.
//! A line may be lost by a power cut, and then so is how far its file was read; before a usage file
//! is removed, the log is synced. What other nodes add to the store is not seen before the log is
//! written anew: at a start with the store, or when the store is back.
//! Owner: this value; `tyr-store` appends, and whoever follows an old process. A process whose log
//! its successor has replaced lets go of it: what it writes from there on is not looked at.
//! Failure: a log that cannot be appended to is removed, so that no start trusts it; it is written
//! anew from the store later.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::{Cell, Charge, Timestamp};
use serde::{Deserialize, Serialize};

use crate::data_dir::{NodeKey, sync_dir};
use crate::frame;
use crate::origin::Origin;
use crate::store::{NOBODY, Sums};

const FILE: &str = "cells.log";
const ASIDE: &str = "cells.log.new";

/// Longest line read, in bytes: a batch of 4,096 records has far less.
const LINE_BYTES: u64 = 64 * 1024 * 1024;

/// Cells in one line of the beginning.
const CELLS_A_LINE: usize = 1_000;

/// Whose the cells are of which the log does not say it: of all together.
const ALL: Origin = Origin {
    node: NOBODY,
    boot: 0,
};

/// Bytes below which the log is not made smaller.
const SMALL: u64 = 1024 * 1024;

/// The log of one `data_dir`. Does nothing until it was written or taken up. Calls block for the
/// disk.
#[derive(Debug)]
pub(crate) struct SettledLog {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    file: Option<File>,
    bytes: u64,
    /// After it was last made small.
    least: u64,
    unsynced: bool,
    /// It was given up, and only the store can tell what belongs into it.
    broken: bool,
}

/// How far a usage file was read into the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) boot: u64,
    pub(crate) number: u64,
    /// Offset in bytes.
    pub(crate) to: u64,
}

/// What the log says.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    sums: BTreeMap<Origin, Sums>,
    /// By boot and number of the usage file.
    marks: BTreeMap<(u64, u64), u64>,
}

/// One line: charges, whose they are, and what was read for them.
#[derive(Debug, Serialize, Deserialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    read: Option<(u64, u64, u64)>,
    /// Node, in hexadecimal digits, and boot. A program of before did not say it.
    #[serde(skip_serializing_if = "Option::is_none", default, borrow)]
    of: Option<(Cow<'a, str>, u64)>,
    #[serde(borrow)]
    cells: Vec<Entry<'a>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    #[serde(borrow)]
    counter: Cow<'a, str>,
    epoch: i64,
    amount: u64,
    expires_at_ms: u64,
}

// === impl SettledLog ===

impl SettledLog {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Whether there is one of an earlier run.
    pub(crate) fn exists(&self) -> bool {
        self.folder.join(FILE).exists()
    }

    /// Goes on with it, if there is one, until it is replaced.
    pub(crate) fn go_on(&self) {
        if self.exists() {
            let mut state = self.lock();
            let opened = self.append_to(0).map(|opened| *state = opened);
            self.settle(&mut state, opened);
        }
    }

    /// Reads it and goes on with it. Lines that a power cut tore or the disk changed are left out.
    pub(crate) fn take_up(&self) -> io::Result<Contents> {
        let mut state = self.lock();
        let (contents, bytes, damaged) = read(&self.folder.join(FILE))?;
        if damaged > 0 {
            tracing::warn!(damaged, file = FILE, "damaged lines are left out");
        }
        *state = self.append_to(bytes)?;
        Ok(contents)
    }

    fn append_to(&self, bytes: u64) -> io::Result<State> {
        let path = self.folder.join(FILE);
        let mut file = OpenOptions::new().append(true).open(path)?;
        // A torn end must not swallow the next line.
        file.write_all(b"\n")?;
        Ok(State {
            file: Some(file),
            bytes: bytes + 1,
            least: bytes,
            unsynced: true,
            broken: false,
        })
    }

    /// Begins it anew with what the store has: `read` is how far usage files that are still there are
    /// in it.
    pub(crate) fn replace(&self, cells: &[(Origin, Cell)], read: &[Mark]) {
        let mut state = self.lock();
        let written = self.write_anew(&mut state, cells, read);
        self.settle(&mut state, written);
    }

    /// Adds what the store has just taken of the origin.
    pub(crate) fn append<'a>(
        &self,
        origin: Origin,
        read: Option<Mark>,
        charges: impl IntoIterator<Item = &'a [Charge]>,
    ) {
        let mut state = self.lock();
        if state.file.is_none() {
            return;
        }
        let mut sums = Sums::default();
        for charges in charges {
            sums.add_charges(charges);
        }
        let appended = append(&mut state, origin, read, &sums.cells());
        self.settle(&mut state, appended);
    }

    /// Adds what another process was seen to add to the store.
    pub(crate) fn append_cells(&self, origin: Origin, cells: &[Cell]) {
        let mut state = self.lock();
        if state.file.is_none() || cells.is_empty() {
            return;
        }
        let appended = append(&mut state, origin, None, cells);
        self.settle(&mut state, appended);
    }

    /// Makes everything appended durable, before what it stands for is removed.
    pub(crate) fn sync(&self) {
        let mut state = self.lock();
        if let Some(file) = state.file.as_ref().filter(|_| state.unsynced) {
            let synced = file.sync_data();
            state.unsynced = false;
            self.settle(&mut state, synced);
        }
    }

    /// Leaves out what has expired and adds up the rest, if the log has grown much. Marks are kept
    /// for usage files that are `there`.
    pub(crate) fn compact(&self, now: Timestamp, there: impl Fn(u64, u64) -> bool) {
        let mut state = self.lock();
        let large = state.bytes >= SMALL && state.bytes / 2 >= state.least;
        if state.file.is_none() || !large {
            return;
        }
        if self.is_succeeded(&state) {
            *state = State::default();
            return;
        }
        let compacted = read(&self.folder.join(FILE)).and_then(|(mut contents, _, _)| {
            contents
                .marks
                .retain(|(boot, number), _| there(*boot, *number));
            let marks: Vec<_> = contents.marks().collect();
            let cells = contents.by_origin(now);
            self.write_anew(&mut state, &cells, &marks)
        });
        self.settle(&mut state, compacted);
    }

    /// It lacks what another process added to the store: it is written from there when there is time.
    pub(crate) fn renew(&self) {
        self.lock().broken = true;
    }

    /// Whether it was given up and waits to be written from the store.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    fn write_anew(
        &self,
        state: &mut State,
        cells: &[(Origin, Cell)],
        marks: &[Mark],
    ) -> io::Result<()> {
        let aside = self.folder.join(ASIDE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&aside)?;
        let mut writer = BufWriter::with_capacity(64 * 1024, file);
        let mut bytes = 0;
        let mut put = |line: Line<'_>| {
            let text = encode(&line);
            bytes += text.len() as u64;
            writer.write_all(&text)
        };
        for mark in marks {
            put(Line::new(None, Some(*mark), Vec::new()))?;
        }
        let mut of: BTreeMap<Origin, Vec<Entry<'_>>> = BTreeMap::new();
        for (origin, cell) in cells {
            of.entry(*origin).or_default().push(Entry::of(cell));
        }
        for (origin, mut entries) in of {
            while !entries.is_empty() {
                let rest = entries.split_off(entries.len().min(CELLS_A_LINE));
                put(Line::new(Some(origin), None, entries))?;
                entries = rest;
            }
        }
        // So that an empty log is told from a torn one.
        put(Line::new(None, None, Vec::new()))?;
        let file = writer
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        let path = self.folder.join(FILE);
        std::fs::rename(&aside, &path)?;
        sync_dir(&self.folder)?;
        *state = State {
            file: Some(OpenOptions::new().append(true).open(&path)?),
            bytes,
            least: bytes,
            unsynced: false,
            broken: false,
        };
        Ok(())
    }

    /// Whether another process has begun it anew.
    fn is_succeeded(&self, state: &State) -> bool {
        let Some(file) = &state.file else {
            return false;
        };
        match (file.metadata(), std::fs::metadata(self.folder.join(FILE))) {
            (Ok(own), Ok(there)) => (own.dev(), own.ino()) != (there.dev(), there.ino()),
            _ => false,
        }
    }

    /// Gives the log up after a fault.
    fn settle(&self, state: &mut State, outcome: io::Result<()>) {
        let Err(error) = outcome else { return };
        if self.is_succeeded(state) {
            *state = State::default();
            return;
        }
        tracing::error!(%error, file = FILE, "settled cells cannot be kept for a start without the store");
        *state = State {
            broken: true,
            ..State::default()
        };
        let removed = std::fs::remove_file(self.folder.join(FILE));
        if let Err(error) = removed.or_else(absent_is_fine) {
            tracing::error!(%error, file = FILE, "cannot remove it either: it lacks charges");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic leaves a file whose every line stands for itself.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

fn append(state: &mut State, origin: Origin, read: Option<Mark>, cells: &[Cell]) -> io::Result<()> {
    let entries = cells.iter().map(Entry::of);
    let line = encode(&Line::new(Some(origin), read, entries.collect()));
    if let Some(file) = &mut state.file {
        file.write_all(&line)?;
        state.bytes += line.len() as u64;
        state.unsynced = true;
    }
    Ok(())
}

fn encode(line: &Line<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::append(&mut bytes, |json| {
        serde_json::to_writer(json, line).expect("a Vec takes every byte");
    });
    bytes
}

/// What the file says, its length, and how many lines are damaged.
fn read(path: &Path) -> io::Result<(Contents, u64, u64)> {
    let mut reader = BufReader::with_capacity(64 * 1024, File::open(path)?);
    let (mut contents, mut bytes, mut damaged) = (Contents::default(), 0, 0);
    let mut text = Vec::new();
    loop {
        text.clear();
        let read = (&mut reader)
            .take(LINE_BYTES)
            .read_until(b'\n', &mut text)?;
        if read == 0 {
            return Ok((contents, bytes, damaged));
        }
        bytes += read as u64;
        // One that lacks only its end is whole: it gets one when the log is gone on with.
        let json = frame::json(text.strip_suffix(b"\n").unwrap_or(&text));
        match json.and_then(|json| serde_json::from_slice::<Line<'_>>(json).ok()) {
            Some(line) => contents.take(line),
            // An empty one was put after what may be torn.
            None => damaged += u64::from(text != b"\n"),
        }
    }
}

// === impl Contents ===

impl Contents {
    /// How far a usage file is in the cells.
    pub(crate) fn mark(&self, boot: u64, number: u64) -> u64 {
        self.marks.get(&(boot, number)).copied().unwrap_or(0)
    }

    /// Adds what a usage file of the origin says beyond its mark.
    pub(crate) fn add(&mut self, origin: Origin, charges: &[Charge]) {
        self.sums.entry(origin).or_default().add_charges(charges);
    }

    /// Whether some of it is of a program that did not keep origins apart.
    pub(crate) fn is_mixed(&self) -> bool {
        self.sums.contains_key(&ALL)
    }

    /// The cells that matter at `now`, each origin's apart.
    pub(crate) fn by_origin(self, now: Timestamp) -> Vec<(Origin, Cell)> {
        let mut cells = Vec::new();
        for (origin, sums) in self.sums {
            let live = sums
                .cells()
                .into_iter()
                .filter(|cell| cell.expires_at > now);
            cells.extend(live.map(|cell| (origin, cell)));
        }
        cells
    }

    fn marks(&self) -> impl Iterator<Item = Mark> {
        let marks = self.marks.iter();
        marks.map(|((boot, number), to)| Mark {
            boot: *boot,
            number: *number,
            to: *to,
        })
    }

    fn take(&mut self, line: Line<'_>) {
        if let Some((boot, number, to)) = line.read {
            self.marks.insert((boot, number), to);
        }
        if line.cells.is_empty() {
            return;
        }
        let sums = self.sums.entry(line.of.and_then(origin_of).unwrap_or(ALL));
        let sums = sums.or_default();
        for entry in line.cells {
            sums.add(Cell {
                counter: entry.counter.into_owned(),
                epoch: entry.epoch,
                amount: entry.amount,
                expires_at: Timestamp(entry.expires_at_ms),
            });
        }
    }
}

fn origin_of((node, boot): (Cow<'_, str>, u64)) -> Option<Origin> {
    let node = u128::from_str_radix(&node, 16).ok().map(NodeKey)?;
    Some(Origin { node, boot })
}

// === impl Line ===

impl<'a> Line<'a> {
    fn new(of: Option<Origin>, read: Option<Mark>, cells: Vec<Entry<'a>>) -> Self {
        Self {
            read: read.map(|mark| (mark.boot, mark.number, mark.to)),
            of: of.map(|of| (of.node.to_string().into(), of.boot)),
            cells,
        }
    }
}

impl<'a> Entry<'a> {
    fn of(cell: &'a Cell) -> Self {
        Self {
            counter: cell.counter.as_str().into(),
            epoch: cell.epoch,
            amount: cell.amount,
            expires_at_ms: cell.expires_at.0,
        }
    }
}

#[cfg(test)]
mod tests;
