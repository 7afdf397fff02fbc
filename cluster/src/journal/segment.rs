//! The usage files: naming, appending, reading.
//!
//! A segment is a file `usage-<boot>-<number>.log`, appended to by one owner, never changed in
//! place. A writer that failed takes back what it had half written; a reader trusts a line only by
//! its checksum.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::line;
use crate::data_dir::sync_dir;
use crate::record::UsageRecord;

/// Records read back for one transaction at most.
pub(super) const CHUNK_RECORDS: usize = 4_096;

/// Longest line read; anything longer is damage (a record is a few KiB at most).
const LINE_BYTES: u64 = 1024 * 1024;

/// Name of one segment; the order is the order of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SegmentId {
    pub(super) boot: u64,
    pub(super) number: u64,
}

impl SegmentId {
    fn parse(name: &str) -> Option<Self> {
        let (boot, number) = name
            .strip_prefix("usage-")?
            .strip_suffix(".log")?
            .split_once('-')?;
        Some(Self {
            boot: boot.parse().ok()?,
            number: number.parse().ok()?,
        })
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "usage-{}-{}.log", self.boot, self.number)
    }
}

/// The folder of segments, and the numbers for new ones.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    boot: u64,
    next: AtomicU64,
    /// Bytes that the pretended disk still takes.
    #[cfg(test)]
    pub(super) room: AtomicU64,
}

impl Folder {
    pub(super) fn new(path: &Path, boot: u64) -> Self {
        Self {
            path: path.to_owned(),
            boot,
            next: AtomicU64::new(1),
            #[cfg(test)]
            room: AtomicU64::new(u64::MAX),
        }
    }

    /// The boot that names new segments.
    pub(super) fn boot(&self) -> u64 {
        self.boot
    }

    /// Every segment in the folder with its length in bytes, oldest first.
    pub(super) fn segments(&self) -> io::Result<Vec<(SegmentId, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            if let Some(id) = entry.file_name().to_str().and_then(SegmentId::parse) {
                found.push((id, entry.metadata()?.len()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Starts a new, empty segment. Its name is durable after [`Folder::sync`].
    pub(super) fn create(&self) -> io::Result<SegmentWriter> {
        let id = SegmentId {
            boot: self.boot,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        };
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(self.file(id))?;
        Ok(SegmentWriter {
            id,
            file,
            len: 0,
            spoilt: false,
        })
    }

    /// Makes names created so far durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_dir(&self.path)
    }

    /// Removes a segment whose records are all in the store.
    pub(super) fn remove(&self, id: SegmentId) -> io::Result<()> {
        std::fs::remove_file(self.file(id))
    }

    /// Keeps a segment with unreadable lines under another name, for the operator.
    pub(super) fn set_aside(&self, id: SegmentId) -> io::Result<PathBuf> {
        let aside = self.path.join(format!("{id}.damaged"));
        std::fs::rename(self.file(id), &aside)?;
        Ok(aside)
    }

    /// Reads up to [`CHUNK_RECORDS`] records between two offsets, both at the start of a line.
    pub(super) fn read(&self, id: SegmentId, from: u64, to: u64) -> io::Result<Chunk> {
        let mut file = File::open(self.file(id))?;
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::with_capacity(64 * 1024, file.take(to.saturating_sub(from)));
        let mut chunk = Chunk {
            records: Vec::new(),
            damaged: 0,
            next: from,
        };
        let mut text = Vec::new();
        while chunk.records.len() < CHUNK_RECORDS {
            text.clear();
            let read = (&mut reader)
                .take(LINE_BYTES)
                .read_until(b'\n', &mut text)?;
            if read == 0 {
                // Also when the file is shorter than it was: nothing more will come.
                chunk.next = to;
                break;
            }
            chunk.next += read as u64;
            let record = text.strip_suffix(b"\n").and_then(line::decode);
            match record {
                Some(record) => chunk.records.push(record),
                None => chunk.damaged += 1,
            }
        }
        Ok(chunk)
    }

    /// Whether the file is there.
    pub(super) fn has(&self, id: SegmentId) -> bool {
        self.file(id).exists()
    }

    /// Full path of a segment.
    pub(super) fn file(&self, id: SegmentId) -> PathBuf {
        self.path.join(id.to_string())
    }

    /// Writes to a file as far as the pretended disk has room.
    #[cfg(test)]
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        if room < bytes.len() as u64 {
            file.write_all(&bytes[..room as usize])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        if room != u64::MAX {
            self.room.store(room - bytes.len() as u64, Ordering::SeqCst);
        }
        file.write_all(bytes)
    }

    #[cfg(not(test))]
    fn write(&self, mut file: &File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
}

/// What one reading gave.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) records: Vec<UsageRecord>,
    /// Lines that could not be understood.
    pub(super) damaged: u64,
    /// Offset at which to read on.
    pub(super) next: u64,
}

/// The one owner of a segment that still grows.
#[derive(Debug)]
pub(super) struct SegmentWriter {
    id: SegmentId,
    file: File,
    len: u64,
    spoilt: bool,
}

impl SegmentWriter {
    pub(super) fn id(&self) -> SegmentId {
        self.id
    }

    /// Bytes of whole lines.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends whole lines, all or none: what was half written is taken back.
    pub(super) fn append(&mut self, folder: &Folder, lines: &[u8]) -> io::Result<()> {
        if let Err(error) = folder.write(&self.file, lines) {
            self.cut(self.len);
            return Err(error);
        }
        self.len += lines.len() as u64;
        Ok(())
    }

    /// Whether bytes after the last whole line could not be taken back: nothing may be appended
    /// any more, and readers stop at the offset they were told.
    pub(super) fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// Takes back everything after `len`, as far as the disk lets it.
    pub(super) fn cut(&mut self, len: u64) {
        if let Err(error) = self.file.set_len(len) {
            tracing::warn!(segment = %self.id, %error, "cannot take back a half-written line");
            self.spoilt = true;
        }
        self.len = len;
    }

    /// Makes the appended lines survive a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_strangers_ignored() {
        let id = SegmentId {
            boot: 1_764_000_000_000,
            number: 12,
        };
        assert_eq!(SegmentId::parse(&id.to_string()), Some(id));
        for name in [
            "usage-1-2.log.damaged",
            "usage-1.log",
            "usage-a-1.log",
            "boot",
        ] {
            assert_eq!(SegmentId::parse(name), None, "{name}");
        }
    }

    #[test]
    fn a_failed_append_leaves_whole_lines() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), 1);
        let mut writer = folder.create().unwrap();
        writer.append(&folder, b"first\n").unwrap();
        folder.room.store(3, Ordering::SeqCst);
        writer.append(&folder, b"second\n").unwrap_err();
        folder.room.store(u64::MAX, Ordering::SeqCst);
        writer.append(&folder, b"third\n").unwrap();
        let content = std::fs::read(folder.file(writer.id())).unwrap();
        assert_eq!(content, b"first\nthird\n");
        assert_eq!(writer.len(), content.len() as u64);
    }

    #[test]
    fn a_line_without_end_is_damage_and_not_endless_memory() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path(), 1);
        let mut writer = folder.create().unwrap();
        let noise = vec![b'x'; LINE_BYTES as usize * 2 + 5];
        writer.append(&folder, &noise).unwrap();
        let chunk = folder.read(writer.id(), 0, writer.len()).unwrap();
        assert_eq!((chunk.records.len(), chunk.damaged), (0, 3));
        assert_eq!(chunk.next, writer.len());
    }
}
