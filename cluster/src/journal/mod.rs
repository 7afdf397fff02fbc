//! The usage file: every settled request is on disk within one commit interval.
//!
//! Two threads, because the promise must not depend on the store. `tyr-journal` only writes and
//! syncs files, at most every [`COMMIT_INTERVAL`]. `tyr-store` feeds the store with what is durable,
//! straight from memory or, at a start and after a fault, from those files; it may hang or fail for
//! hours without widening what a crash can take.
//!
//! While the store is away, files grow by about 0.7 KB a request (at 1,000 requests a second 42 MB, or
//! ten files, a minute) as long as the disk has room; memory stays as it is. A Postgres that is back
//! takes some 15,000 records a second.
//!
//! What a kill can lose: records younger than one commit interval. What nothing else loses: when
//! the queue is full the caller appends its own line; when the disk is full records wait in a
//! bounded memory backlog and the store is fed from there; only when the disk *and* the store
//! refuse for so long that this is full are records dropped, counted and logged.

mod backlog;
mod bell;
mod committer;
mod follower;
mod line;
mod recorder;
mod recovery;
mod segment;
mod succession;
mod throttle;
mod writer;

#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

pub use self::committer::COMMIT_INTERVAL;
pub use self::recorder::Recorder;
pub(crate) use self::recovery::Recovery;

use self::backlog::Backlog;
use self::committer::Committer;
use self::follower::Follower;
use self::recorder::Shared;
use self::segment::Folder;
use self::succession::Succession;
use self::writer::Writer;
use crate::data_dir::DataDir;
use crate::entity::EntityLog;
use crate::error::StartError;
use crate::origin::Origin;
use crate::settled::{Contents, SettledLog};
use crate::status::NodeStatus;
use crate::store::Store;

const JOURNAL_THREAD: &str = "tyr-journal";
const STORE_THREAD: &str = "tyr-store";

/// Sizes, all bounded; tests use smaller ones.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Records waiting for the journal thread, and the most in one batch.
    pub(crate) queue: usize,
    /// Records held in memory while the disk refuses.
    pub(crate) held: usize,
    /// Records on disk that also wait in memory for the store, so that it need not read them back.
    pub(crate) handed: usize,
    /// Size at which a segment is closed, in bytes.
    pub(crate) segment_bytes: u64,
}

/// The two threads. Dropped without [`Journal::stop`], they end once the last recorder is gone.
#[derive(Debug)]
pub(crate) struct Journal {
    recorder: Recorder,
    threads: [JoinHandle<()>; 2],
}

/// What `tyr-store` looks after besides usage.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Whose revocations it brings to the store.
    pub(crate) entities: Option<EntityLog>,
    /// The node's own copy of the settled cells.
    pub(crate) settled: Option<Arc<SettledLog>>,
    /// What it does first when the store was away at the start.
    pub(crate) recovery: Arc<Recovery>,
    /// Whether the node is a member of a cluster, whose leader seals windows that have passed.
    pub(crate) in_cluster: bool,
}

/// Everything the threads need, before they run.
struct Parts {
    recorder: Recorder,
    committer: Committer,
    follower: Follower,
}

// === impl Sizes ===

impl Default for Sizes {
    fn default() -> Self {
        Self {
            queue: 8_192,
            held: 16_384,
            handed: 16_384,
            segment_bytes: 4 * 1024 * 1024,
        }
    }
}

// === impl Journal ===

impl Journal {
    /// Brings the files of earlier runs into the store, except those of a process that still lives,
    /// then starts both threads. Without the store these files wait; what they and the node's own
    /// copy of the cells add up to is returned instead.
    pub(crate) fn start(
        data_dir: DataDir,
        store: Arc<dyn Store>,
        keeping: Keeping,
        status: Arc<NodeStatus>,
        sizes: Sizes,
    ) -> Result<(Self, Option<Contents>), StartError> {
        let (parts, own) = Parts::assemble(data_dir, store, keeping, status, sizes)?;
        Ok((Self::spawn(parts)?, own))
    }

    fn spawn(parts: Parts) -> Result<Self, StartError> {
        let Parts {
            recorder,
            committer,
            follower,
        } = parts;
        let journal = spawn(JOURNAL_THREAD, move || committer.run())?;
        recorder.shared.bell.hang(journal.thread().clone());
        let store = spawn(STORE_THREAD, move || follower.run())?;
        let threads = [journal, store];
        Ok(Self { recorder, threads })
    }

    pub(crate) fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// Writes what is queued, tries the store once more, ends both threads. What the store does not
    /// take stays in its files for the next start.
    pub(crate) fn stop(self) {
        self.recorder.end();
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread of the usage journal panicked");
            }
        }
    }
}

// === impl Parts ===

impl Parts {
    /// Takes up the files of earlier runs and makes ready for new ones.
    fn assemble(
        data_dir: DataDir,
        store: Arc<dyn Store>,
        keeping: Keeping,
        status: Arc<NodeStatus>,
        sizes: Sizes,
    ) -> Result<(Self, Option<Contents>), StartError> {
        let data_dir = Arc::new(data_dir);
        let folder = Arc::new(Folder::new(data_dir.path(), data_dir.boot()));
        let backlog = Arc::new(Backlog::new(Arc::clone(&status), sizes.held, sizes.handed));
        let own = match (keeping.recovery.is_pending(), &keeping.settled) {
            (true, Some(settled)) => Some(resume(&data_dir, &folder, &backlog, settled)?),
            _ => None,
        };
        let mut follower = Follower::new(
            Arc::clone(&folder),
            Arc::clone(&backlog),
            store,
            Arc::clone(&status),
            Succession::of(&data_dir),
            (data_dir.node_key(), keeping),
        );
        if own.is_none() {
            replay(&data_dir, &folder, &backlog, &mut follower)?;
        }

        let (queue, entries) = sync_channel(sizes.queue);
        let writer = Writer::new(
            Arc::clone(&folder),
            Arc::clone(&backlog),
            Arc::clone(&status),
            sizes.segment_bytes,
        );
        let shared = Arc::new(Shared::new(folder, backlog, status, data_dir, sizes.queue));
        let committer = Committer::new(entries, Arc::clone(&shared), writer, sizes.queue);
        let parts = Self {
            recorder: Recorder::new(queue, shared),
            committer,
            follower,
        };
        Ok((parts, own))
    }
}

/// Leaves the files of earlier runs to the store thread; returns what they, and the cells that the
/// node keeps, add up to.
fn resume(
    data_dir: &DataDir,
    folder: &Folder,
    backlog: &Backlog,
    settled: &SettledLog,
) -> Result<Contents, StartError> {
    let failed = |source: io::Error| StartError::DataDir {
        action: "read usage in",
        path: data_dir.path().to_owned(),
        source,
    };
    // Without one there is none until the store has said what it has: an empty one would be taken for
    // all there was.
    let mut contents = match settled.exists() {
        true => settled.take_up().map_err(failed)?,
        false => Contents::default(),
    };
    for (id, len) in folder.segments().map_err(failed)? {
        let origin = Origin {
            node: data_dir.node_key(),
            boot: id.boot,
        };
        let mut from = contents.mark(id.boot, id.number).min(len);
        backlog.adopt(id, len);
        backlog.stored(id, from, 0);
        while from < len {
            let chunk = folder.read(id, from, len).map_err(failed)?;
            for record in &chunk.records {
                contents.add(origin, &record.charges);
            }
            from = chunk.next;
        }
    }
    Ok(contents)
}

fn replay(
    data_dir: &DataDir,
    folder: &Folder,
    backlog: &Backlog,
    follower: &mut Follower,
) -> Result<(), StartError> {
    let mut segments = folder.segments().map_err(|source| StartError::DataDir {
        action: "list",
        path: data_dir.path().to_owned(),
        source,
    })?;
    segments.retain(|(id, _)| Some(id.boot) != data_dir.predecessor());
    for (id, len) in &segments {
        backlog.adopt(*id, *len);
    }
    if !segments.is_empty() {
        tracing::info!(
            segments = segments.len(),
            "usage files of an earlier run are taken up"
        );
    }
    follower
        .follow(&backlog.round())
        .map_err(StartError::Replay)
}

fn spawn(
    name: &'static str,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, StartError> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| StartError::Thread { name, source })
}
