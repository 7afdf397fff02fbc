//! Any order of writes, stores, faults and crashes, on one thread: nothing that was committed is
//! lost, nothing is counted twice.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::super::writer::Writer;
use super::*;
use crate::data_dir::NodeKey;

#[derive(Clone, Debug)]
enum Step {
    /// The journal thread commits a batch of so many records.
    Commit(u8),
    /// Callers write so many lines themselves, and the journal thread takes them in.
    Overflow(u8),
    /// The store thread does one round.
    Follow,
    /// So many of the next store calls fail before, or after, their commit.
    Refuse(u8),
    LoseAnswer(u8),
    /// The next records are bounded by a disk of so many bytes, or by none.
    Room(Option<u16>),
    /// The process dies and starts again. A write may have been under way.
    Crash(Tail),
    /// The process dies after a round; removals and renames had not reached the disk.
    FollowThenCrashBeforeRemoval,
}

#[derive(Clone, Debug)]
enum Tail {
    Clean,
    /// A line cut at this share of its length, in 256ths.
    Torn(u8),
    /// A whole line that no one was told about.
    Whole,
    Noise(Vec<u8>),
}

/// A process without threads.
struct Process {
    folder: Arc<Folder>,
    backlog: Arc<Backlog>,
    status: Arc<NodeStatus>,
    writer: Writer,
    follower: Follower,
}

impl Process {
    fn boot(dir: &Path, boot: u64, store: &FlakyStore) -> Self {
        let status = Arc::new(NodeStatus::new());
        let folder = Arc::new(Folder::new(dir, boot));
        let backlog = Arc::new(Backlog::new(Arc::clone(&status), 1_000, HANDED));
        for (id, len) in folder.segments().unwrap() {
            backlog.adopt(id, len);
        }
        Self {
            writer: Writer::new(
                Arc::clone(&folder),
                Arc::clone(&backlog),
                Arc::clone(&status),
                1_500,
            ),
            follower: Follower::new(
                Arc::clone(&folder),
                Arc::clone(&backlog),
                Arc::new(store.clone()),
                Arc::clone(&status),
                None,
                (NodeKey(1), Keeping::default()),
            ),
            folder,
            backlog,
            status,
        }
    }

    fn follow(&mut self) -> Result<(), FlushError> {
        self.follower.follow(&self.backlog.round())
    }

    fn overflow(&mut self, numbers: std::ops::Range<u64>) -> BTreeSet<u64> {
        let mut done = BTreeSet::new();
        let Ok(mut segment) = self.folder.create() else {
            return done;
        };
        for number in numbers {
            let mut lines = Vec::new();
            line::encode(&record(number), &mut lines);
            if segment.append(&self.folder, &lines).is_ok() {
                done.insert(number);
            }
        }
        self.writer.adopt(segment, done.len() as u64);
        done
    }
}

/// The world over many boots, and what must be true at its end.
struct World {
    dir: TempDir,
    store: FlakyStore,
    process: Process,
    boot: u64,
    next: u64,
    durable: BTreeSet<u64>,
    /// Held in memory because the disk refused: a crash may take them, or the store has them.
    volatile: BTreeSet<u64>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = FlakyStore::default();
        let process = Process::boot(dir.path(), 1, &store);
        Self {
            dir,
            store,
            process,
            boot: 1,
            next: 0,
            durable: BTreeSet::new(),
            volatile: BTreeSet::new(),
        }
    }

    fn numbers(&mut self, count: u8) -> std::ops::Range<u64> {
        let first = self.next;
        self.next += u64::from(count);
        first..self.next
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Commit(count) => {
                let numbers = self.numbers(count);
                self.process
                    .writer
                    .commit(numbers.clone().map(record).collect(), true);
                self.volatile.extend(numbers);
                if !self.process.backlog.holds() {
                    self.durable.append(&mut self.volatile);
                }
            }
            Step::Overflow(count) => {
                let numbers = self.numbers(count);
                let done = self.process.overflow(numbers);
                self.durable.extend(done);
            }
            Step::Follow => {
                // Fails when told to; then everything stays for the next round.
                let _ = self.process.follow();
                self.settle_volatile();
            }
            Step::Refuse(calls) => self.store.refuse.store(calls.into(), Ordering::SeqCst),
            Step::LoseAnswer(calls) => {
                self.store.lose_answer.store(calls.into(), Ordering::SeqCst);
            }
            Step::Room(room) => {
                let room = room.map_or(u64::MAX, u64::from);
                self.process.folder.room.store(room, Ordering::SeqCst);
            }
            Step::Crash(tail) => self.crash(tail),
            Step::FollowThenCrashBeforeRemoval => {
                let files = self.segments();
                let _ = self.process.follow();
                self.settle_volatile();
                for (path, content) in files {
                    std::fs::write(path, content).unwrap();
                }
                self.crash(Tail::Clean);
            }
        }
    }

    /// What the store took straight from memory is safe from then on.
    fn settle_volatile(&mut self) {
        let stored = |number: &u64| {
            let id = record(*number).request_id;
            self.store.inner.usage(&id).unwrap().is_some()
        };
        let settled: Vec<u64> = self.volatile.iter().copied().filter(stored).collect();
        self.durable.extend(settled);
    }

    fn segments(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let segments = self.process.folder.segments().unwrap();
        segments
            .into_iter()
            .map(|(id, _)| {
                let path = self.process.folder.file(id);
                let content = std::fs::read(&path).unwrap();
                (path, content)
            })
            .collect()
    }

    fn crash(&mut self, tail: Tail) {
        // Only this boot's own segments can have had a write under way.
        let segments = self.process.folder.segments().unwrap();
        let last = segments.last().filter(|(id, _)| id.boot == self.boot);
        if let Some((id, _)) = last {
            let path = self.process.folder.file(*id);
            let mut content = std::fs::read(&path).unwrap();
            let number = self.next;
            let mut line = Vec::new();
            line::encode(&record(number), &mut line);
            self.next += 1;
            match tail {
                Tail::Clean => {}
                Tail::Torn(share) => {
                    let cut = (line.len() - 1) * usize::from(share) / 256;
                    content.extend_from_slice(&line[..cut]);
                }
                Tail::Whole => {
                    content.extend_from_slice(&line);
                    self.durable.insert(number);
                }
                Tail::Noise(noise) => content.extend_from_slice(&noise),
            }
            std::fs::write(path, content).unwrap();
        }
        self.volatile.clear();
        self.boot += 1;
        self.process = Process::boot(self.dir.path(), self.boot, &self.store);
    }

    /// Everything recovers, one last time.
    fn end(mut self) {
        self.store.set_down(false);
        self.store.lose_answer.store(0, Ordering::SeqCst);
        self.process.folder.room.store(u64::MAX, Ordering::SeqCst);
        self.process.writer.commit(Vec::new(), true);
        self.durable.append(&mut self.volatile);
        self.crash(Tail::Clean);
        self.process.follow().unwrap();
        assert_eq!(self.process.status.snapshot().waiting_bytes, 0);
        assert_eq!(self.segments(), [], "all segments are done");
        assert_exactly(&*self.store.inner, self.durable);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let tail = prop_oneof![
        Just(Tail::Clean),
        any::<u8>().prop_map(Tail::Torn),
        Just(Tail::Whole),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Tail::Noise),
    ];
    prop_oneof![
        4 => (0_u8..5).prop_map(Step::Commit),
        2 => (0_u8..4).prop_map(Step::Overflow),
        3 => Just(Step::Follow),
        1 => (1_u8..4).prop_map(Step::Refuse),
        1 => (1_u8..4).prop_map(Step::LoseAnswer),
        1 => prop::option::of(0_u16..4_000).prop_map(Step::Room),
        2 => tail.prop_map(Step::Crash),
        1 => Just(Step::FollowThenCrashBeforeRemoval),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn committed_records_are_neither_lost_nor_doubled(
        steps in prop::collection::vec(step(), 0..40)
    ) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
        world.end();
    }
}
