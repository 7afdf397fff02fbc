//! The last-good file: what the entities were when the store was last seen.
//!
//! `entities.log` in `data_dir` is what a node starts with when its store is away, and where a
//! revocation waits for it. It is a log of lines, appended and synced; when most lines are out of
//! date it is written anew beside itself and renamed, so a kill at any point leaves the old file or
//! the new one. A line that a kill tore is cut off by the next append.
//! Owner: whoever holds `entities.lock`, for one call; two processes may share the folder while one
//! takes over from the other.
//! Failure: an append that failed leaves the file as it was; damaged lines are skipped and counted.

mod line;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub(super) use self::line::Line;

use crate::data_dir::sync_dir;
use crate::entity::{Change, Entity};

const FILE: &str = "entities.log";
const ASIDE: &str = "entities.log.new";
const LOCK: &str = "entities.lock";

/// Longest line read or written, in bytes; anything longer is damage.
const LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Lines below which the file is never written anew.
const SMALL: u64 = 1_024;

/// The file of one `data_dir`. Calls block for the disk.
#[derive(Debug)]
pub(crate) struct LastGood {
    folder: PathBuf,
    lines: Mutex<Lines>,
}

/// How much of the file matters, as far as this process knows.
#[derive(Debug, Default)]
struct Lines {
    all: u64,
    /// After the file was last written anew.
    live: u64,
}

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// By kind and name, tombstones too.
    pub(crate) entities: BTreeMap<(String, String), Entity>,
    /// Every entity up to this revision is in `entities`.
    pub(crate) seen: u64,
    /// Revocations that the store does not have, by key hash.
    pub(crate) pending: BTreeMap<String, Change>,
    /// Lines that could not be understood, the torn one at the end included.
    pub(crate) damaged: u64,
}

// === impl LastGood ===

impl LastGood {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            lines: Mutex::default(),
        }
    }

    /// Where the file of a `data_dir` is.
    pub(crate) fn file(folder: &Path) -> PathBuf {
        folder.join(FILE)
    }

    /// Everything the file says; nothing when there is none.
    pub(crate) fn read(&self) -> io::Result<Contents> {
        let _lock = self.lock()?;
        self.contents()
    }

    /// The revocations in the file, for when the store has the rest.
    pub(crate) fn pending(&self) -> io::Result<BTreeMap<String, Change>> {
        let _lock = self.lock()?;
        let mut contents = Contents::default();
        contents.damaged = self.each(|line| {
            if let Line::Pending(..) | Line::Brought(_) = line {
                contents.take(line);
            }
        })?;
        contents.complain();
        Ok(contents.pending)
    }

    /// Adds lines, all or none, and returns when they are durable.
    pub(crate) fn append(&self, lines: &[Line]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for line in lines {
            let start = bytes.len();
            line::encode(line, &mut bytes);
            if (bytes.len() - start) as u64 > LINE_BYTES {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        let _lock = self.lock()?;
        self.append_bytes(&bytes)?;
        let mut count = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        count.all += lines.len() as u64;
        if count.all >= SMALL && count.all / 2 >= count.live {
            count.live = self.compact().unwrap_or_else(|error| {
                tracing::warn!(%error, file = FILE, "cannot leave out what is out of date");
                // What was appended is durable all the same; tried again when it has doubled.
                count.all
            });
            count.all = count.live;
        }
        Ok(())
    }

    /// Writes the file anew without lines that are out of date; returns how many there are left.
    fn compact(&self) -> io::Result<u64> {
        let contents = self.contents()?;
        let entities = contents.entities.values();
        self.write_anew(entities, contents.seen, &contents.pending)
    }

    /// Puts these in place of everything in the file, except that revocations of others that it
    /// holds stay. Every entity up to `seen` is among them.
    pub(crate) fn replace(&self, entities: &[Entity], seen: u64) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut pending = Contents::default();
        self.each(|line| {
            if let Line::Pending(..) | Line::Brought(_) = line {
                pending.take(line);
            }
        })?;
        let live = self.write_anew(entities.iter(), seen, &pending.pending)?;
        let mut count = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        *count = Lines { all: live, live };
        Ok(())
    }

    fn lock(&self) -> io::Result<File> {
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.folder.join(LOCK))?;
        lock.lock()?;
        Ok(lock)
    }

    fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        contents.damaged = self.each(|line| contents.take(line))?;
        contents.complain();
        Ok(contents)
    }

    /// Shows each line; returns how many are damaged.
    fn each(&self, mut visit: impl FnMut(Line)) -> io::Result<u64> {
        let file = match File::open(self.folder.join(FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let (mut text, mut damaged) = (Vec::new(), 0);
        loop {
            text.clear();
            let read = (&mut reader)
                .take(LINE_BYTES)
                .read_until(b'\n', &mut text)?;
            if read == 0 {
                return Ok(damaged);
            }
            match text.strip_suffix(b"\n").and_then(line::decode) {
                Some(line) => visit(line),
                None => damaged += 1,
            }
        }
    }

    fn append_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let path = self.folder.join(FILE);
        let is_new = !path.exists();
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o600)
            .open(&path)?;
        let len = whole_lines(&mut file)?;
        file.set_len(len)?;
        if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_data()) {
            // If this fails too, the next append cuts off what tore, and what did not is true.
            let _ = file.set_len(len);
            return Err(error);
        }
        match is_new {
            true => sync_dir(&self.folder),
            false => Ok(()),
        }
    }

    fn write_anew<'e>(
        &self,
        entities: impl Iterator<Item = &'e Entity>,
        seen: u64,
        pending: &BTreeMap<String, Change>,
    ) -> io::Result<u64> {
        let aside = self.folder.join(ASIDE);
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&aside)?;
        let mut writer = BufWriter::with_capacity(256 * 1024, file);
        let lines = entities
            .map(|entity| Line::Entity(entity.clone()))
            .chain([Line::Seen(seen)])
            .chain(
                pending
                    .iter()
                    .map(|(hash, change)| Line::Pending(hash.clone(), change.clone())),
            );
        let (mut count, mut bytes) = (0, Vec::new());
        for line in lines {
            bytes.clear();
            line::encode(&line, &mut bytes);
            writer.write_all(&bytes)?;
            count += 1;
        }
        let file = writer.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        std::fs::rename(&aside, self.folder.join(FILE))?;
        sync_dir(&self.folder)?;
        Ok(count)
    }
}

/// Bytes of the file up to the end of its last whole line.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    let mut bytes = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(STEP);
        file.seek(SeekFrom::Start(start))?;
        bytes.clear();
        Read::by_ref(file)
            .take(end - start)
            .read_to_end(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + at as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

// === impl Contents ===

impl Contents {
    fn take(&mut self, line: Line) {
        match line {
            Line::Entity(entity) => {
                let place = (entity.kind.clone(), entity.name.clone());
                let known = self.entities.get(&place);
                // Two processes append what both have seen, in any order.
                if known.is_none_or(|known| known.revision <= entity.revision) {
                    self.entities.insert(place, entity);
                }
            }
            Line::Seen(revision) => self.seen = self.seen.max(revision),
            Line::Pending(hash, change) => {
                self.pending.entry(hash).or_insert(change);
            }
            Line::Brought(hash) => {
                self.pending.remove(&hash);
            }
        }
    }

    fn complain(&self) {
        if self.damaged > 0 {
            tracing::warn!(
                file = FILE,
                lines = self.damaged,
                "damaged lines of the last-good file were skipped"
            );
        }
    }
}

#[cfg(test)]
mod tests;
