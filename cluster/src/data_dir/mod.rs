//! The node's own folder: its lock, its name on the wire, its boot number.
//!
//! Promise: one process at a time works on a folder, or two while a new one takes over from an old
//! one; a node keeps its key for life, and each start has a larger boot number than every start
//! before it. Small files are replaced whole (written aside, synced, renamed), so a power cut leaves
//! the old one or the new one.
//!
//! Two locks make this so. `lock` belongs to the running process and holds its boot number as text.
//! `lock.next` belongs to whoever starts, until it is the only one: boot numbers are drawn and
//! `lock` is written under it, so a newcomer that finds `lock` taken reads there whose files it must
//! not touch. Both end with their process.

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use policy::Timestamp;

use crate::error::StartError;
use crate::origin::Origin;

const LOCK: &str = "lock";
const LOCK_NEXT: &str = "lock.next";
const NODE_KEY: &str = "node-key";
const BOOT: &str = "boot";

/// A node's 128-bit number, drawn once per `data_dir`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub u128);

impl fmt::Display for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// How a start treats a process that already works on the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// It is a mistake.
    Alone,
    /// It is about to go, and this start is its successor.
    TakeOver,
}

/// A locked folder. The locks end when this value is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    node_key: NodeKey,
    boot: u64,
    predecessor: Option<u64>,
    locks: Mutex<Locks>,
}

/// The locks of this process: both at the start, `lock` alone in the end.
#[derive(Debug)]
struct Locks {
    lock: Option<File>,
    next: Option<File>,
}

impl DataDir {
    /// Creates the folder if needed (mode 0700), locks it, and draws this start's boot number.
    pub(crate) fn open(
        path: &Path,
        now: Timestamp,
        entrance: Entrance,
    ) -> Result<Self, StartError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("create", path))?;
        let (mut locks, predecessor) = enter(path, entrance)?;
        let node_key = node_key(path)?;
        let boot = next_boot(path, now)?;
        if let Some(lock) = &locks.lock {
            sign(lock, boot).map_err(failed("write", &path.join(LOCK)))?;
            locks.next = None;
        }
        Ok(Self {
            path: path.to_owned(),
            node_key,
            boot,
            predecessor,
            locks: Mutex::new(locks),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn node_key(&self) -> NodeKey {
        self.node_key
    }

    /// Unix milliseconds of this start, made larger than the last one.
    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// This process.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            node: self.node_key,
            boot: self.boot,
        }
    }

    /// The boot of the process that worked on the folder when this one came.
    pub(crate) fn predecessor(&self) -> Option<u64> {
        self.predecessor
    }

    /// Whether the predecessor has gone. It cannot come back: `lock` is ours from then on.
    pub(crate) fn has_folder(&self) -> Result<bool, StartError> {
        let mut locks = self.locks();
        if locks.lock.is_some() {
            return Ok(true);
        }
        let Some(lock) = lock(&self.path.join(LOCK))? else {
            return Ok(false);
        };
        sign(&lock, self.boot).map_err(failed("write", &self.path.join(LOCK)))?;
        locks.lock = Some(lock);
        Ok(true)
    }

    /// Lets the next process take over. For when nothing of the predecessor is left to do.
    pub(crate) fn admit_next(&self) {
        self.locks().next = None;
    }

    fn locks(&self) -> MutexGuard<'_, Locks> {
        // Each change is one assignment.
        self.locks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the locks that this entrance needs. With a boot: the process that has `lock`.
fn enter(dir: &Path, entrance: Entrance) -> Result<(Locks, Option<u64>), StartError> {
    let locked = || StartError::Locked {
        path: dir.to_owned(),
    };
    let main = dir.join(LOCK);
    match entrance {
        Entrance::Alone => {
            let lock = Some(lock(&main)?.ok_or_else(locked)?);
            let next = Some(self::lock(&dir.join(LOCK_NEXT))?.ok_or_else(locked)?);
            Ok((Locks { lock, next }, None))
        }
        Entrance::TakeOver => {
            let next = lock(&dir.join(LOCK_NEXT))?;
            let next = Some(next.ok_or_else(|| StartError::Upgrading {
                path: dir.to_owned(),
            })?);
            let lock = lock(&main)?;
            let predecessor = match &lock {
                Some(_) => None,
                None => Some(signature(&main)?),
            };
            Ok((Locks { lock, next }, predecessor))
        }
    }
}

/// The lock, unless another open file has it.
fn lock(path: &Path) -> Result<Option<File>, StartError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(failed("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(failed("lock", path)(source)),
    }
}

/// Writes into a lock whose it is. Not synced: it means nothing after a power cut.
fn sign(mut lock: &File, boot: u64) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all(format!("{boot}\n").as_bytes())
}

fn signature(path: &Path) -> Result<u64, StartError> {
    let text = read(path)?.unwrap_or_default();
    text.trim_end().parse().map_err(|_| StartError::Damaged {
        path: path.to_owned(),
        reason: "expected the boot number of the process that has the lock",
    })
}

fn node_key(dir: &Path) -> Result<NodeKey, StartError> {
    let path = dir.join(NODE_KEY);
    let Some(text) = read(&path)? else {
        let key = NodeKey(rand::random());
        replace(&path, &key.to_string())?;
        return Ok(key);
    };
    match u128::from_str_radix(text.trim_end(), 16) {
        Ok(key) if text.trim_end().len() == 32 => Ok(NodeKey(key)),
        _ => Err(StartError::Damaged {
            path,
            reason: "expected 32 hexadecimal digits",
        }),
    }
}

fn next_boot(dir: &Path, now: Timestamp) -> Result<u64, StartError> {
    let path = dir.join(BOOT);
    let last = match read(&path)? {
        None => 0,
        Some(text) => text
            .trim_end()
            .parse::<u64>()
            .map_err(|_| StartError::Damaged {
                path: path.clone(),
                reason: "expected the number of the last boot",
            })?,
    };
    // A clock that was set back must not repeat a number.
    let boot = now.0.max(last.saturating_add(1));
    replace(&path, &boot.to_string())?;
    Ok(boot)
}

fn read(path: &Path) -> Result<Option<String>, StartError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn replace(path: &Path, text: &str) -> Result<(), StartError> {
    let aside = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&aside)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        std::fs::rename(&aside, path)?;
        sync_dir(path.parent().unwrap_or(Path::new(".")))
    };
    write().map_err(failed("write", path))
}

/// Makes created, renamed and removed names in a folder survive a power cut.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StartError {
    let path = path.to_owned();
    move |source| StartError::DataDir {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests;
