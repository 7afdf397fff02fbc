//! The usage file: every settled request is on disk within one commit interval.
//!
//! Two threads, because the promise must not depend on the store. `tyr-journal` only writes and
//! syncs files, at most every [`COMMIT_INTERVAL`]. `tyr-store` feeds the store with what is durable,
//! straight from memory or, at a start and after a fault, from those files; it may hang or fail for
//! hours without widening what a crash can take.
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
mod segment;
mod succession;
mod throttle;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

pub use self::committer::COMMIT_INTERVAL;
pub use self::recorder::Recorder;

use self::backlog::Backlog;
use self::committer::Committer;
use self::follower::Follower;
use self::recorder::Shared;
use self::segment::Folder;
use self::succession::Succession;
use self::writer::Writer;
use crate::data_dir::DataDir;
use crate::error::StartError;
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
    /// then starts both threads.
    pub(crate) fn start(
        data_dir: DataDir,
        store: Arc<dyn Store>,
        status: Arc<NodeStatus>,
        sizes: Sizes,
    ) -> Result<Self, StartError> {
        let parts = Parts::assemble(data_dir, store, status, sizes)?;
        Self::spawn(parts)
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
    /// Brings the files of earlier runs into the store and makes ready for new ones.
    fn assemble(
        data_dir: DataDir,
        store: Arc<dyn Store>,
        status: Arc<NodeStatus>,
        sizes: Sizes,
    ) -> Result<Self, StartError> {
        let data_dir = Arc::new(data_dir);
        let folder = Arc::new(Folder::new(data_dir.path(), data_dir.boot()));
        let backlog = Arc::new(Backlog::new(Arc::clone(&status), sizes.held, sizes.handed));
        let mut follower = Follower::new(
            Arc::clone(&folder),
            Arc::clone(&backlog),
            store,
            Arc::clone(&status),
            Succession::of(&data_dir),
        );
        replay(&data_dir, &folder, &backlog, &mut follower)?;

        let (queue, entries) = sync_channel(sizes.queue);
        let writer = Writer::new(
            Arc::clone(&folder),
            Arc::clone(&backlog),
            Arc::clone(&status),
            sizes.segment_bytes,
        );
        let shared = Arc::new(Shared::new(folder, backlog, status, data_dir, sizes.queue));
        let committer = Committer::new(entries, Arc::clone(&shared), writer, sizes.queue);
        Ok(Self {
            recorder: Recorder::new(queue, shared),
            committer,
            follower,
        })
    }
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
