//! Two processes on one folder, in any order of starts, commits, looks and kills: every record is
//! stored once, and whoever is left knows the sum of all.

use std::path::Path;

use policy::Cell;
use proptest::prelude::*;

use super::super::writer::Writer;
use super::*;
use crate::node::Predecessor;
use crate::testing::amount;

#[derive(Clone, Debug)]
enum Step {
    /// A process starts, to take over if one lives.
    Start,
    /// The old or the new process commits so many records.
    Commit {
        new: bool,
        count: u8,
    },
    /// Its store thread does a round, and asks whether the old one has gone.
    Follow {
        new: bool,
    },
    /// The new one asks what the old one settled.
    Look,
    /// It dies.
    Kill {
        new: bool,
    },
    /// So many of the next store calls fail before, or after, their commit.
    Refuse(u8),
    LoseAnswer(u8),
}

/// A process without threads.
struct Process {
    folder: Arc<Folder>,
    backlog: Arc<Backlog>,
    status: Arc<NodeStatus>,
    writer: Writer,
    follower: Follower,
    predecessor: Option<Predecessor>,
    /// What it knows to be used: loaded, told and its own.
    used: u64,
    _data_dir: Arc<DataDir>,
}

impl Process {
    fn start(dir: &Path, store: &FlakyStore, entrance: Entrance) -> Result<Self, StartError> {
        let data_dir = Arc::new(DataDir::open(dir, Timestamp(1), entrance)?);
        let store: Arc<dyn Store> = Arc::new(store.clone());
        let status = Arc::new(NodeStatus::new());
        let folder = Arc::new(Folder::new(dir, data_dir.boot()));
        let backlog = Arc::new(Backlog::new(Arc::clone(&status), 1_000, HANDED));
        let mut follower = Follower::new(
            Arc::clone(&folder),
            Arc::clone(&backlog),
            Arc::clone(&store),
            Arc::clone(&status),
            Succession::of(&data_dir),
            (data_dir.node_key(), Keeping::default()),
        );
        replay(&data_dir, &folder, &backlog, &mut follower)?;
        status.set_taking_over(data_dir.predecessor().is_some());
        let loaded = store.load_cells(Timestamp(0)).unwrap();
        let predecessor = data_dir.predecessor().map(|boot| {
            Predecessor::new(
                Origin {
                    node: data_dir.node_key(),
                    boot,
                },
                loaded.position,
                Arc::clone(&store),
                Arc::clone(&status),
                None,
            )
        });
        Ok(Self {
            writer: Writer::new(
                Arc::clone(&folder),
                Arc::clone(&backlog),
                Arc::clone(&status),
                1_500,
            ),
            follower,
            folder,
            backlog,
            status,
            predecessor,
            used: usd(&loaded.cells()),
            _data_dir: data_dir,
        })
    }

    fn commit(&mut self, numbers: std::ops::Range<u64>) {
        self.used += numbers.clone().sum::<u64>();
        self.writer.commit(numbers.map(record).collect(), true);
    }

    fn follow(&mut self) -> Result<(), FlushError> {
        self.backlog.request_succession();
        self.follower.follow(&self.backlog.round())
    }

    fn look(&mut self) {
        if let Some(predecessor) = &mut self.predecessor {
            self.used += usd(&predecessor.settled().unwrap());
        }
    }
}

fn usd(cells: &[Cell]) -> u64 {
    amount(cells, "usd")
}

struct World {
    dir: TempDir,
    store: FlakyStore,
    old: Option<Process>,
    new: Option<Process>,
    next: u64,
}

impl World {
    fn process(&mut self, new: bool) -> Option<&mut Process> {
        match new {
            true => self.new.as_mut(),
            false => self.old.as_mut(),
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Start => self.start(),
            Step::Commit { new, count } => {
                let first = self.next;
                if let Some(process) = self.process(new) {
                    process.commit(first..first + u64::from(count));
                    self.next += u64::from(count);
                }
            }
            Step::Follow { new } => {
                if let Some(process) = self.process(new) {
                    // Fails when told to; then everything stays for the next round.
                    let _ = process.follow();
                }
                self.promote();
            }
            Step::Look => {
                if let Some(process) = &mut self.new {
                    process.look();
                }
            }
            Step::Kill { new: true } => self.new = None,
            Step::Kill { new: false } => self.old = None,
            Step::Refuse(calls) => self.store.refuse.store(calls.into(), Ordering::SeqCst),
            Step::LoseAnswer(calls) => {
                self.store.lose_answer.store(calls.into(), Ordering::SeqCst);
            }
        }
    }

    fn start(&mut self) {
        let start = |entrance| Process::start(self.dir.path(), &self.store, entrance);
        if self.new.is_some() {
            let refused = start(Entrance::TakeOver).err().unwrap();
            assert!(matches!(refused, StartError::Upgrading { .. }), "{refused}");
            let refused = start(Entrance::Alone).err().unwrap();
            assert!(matches!(refused, StartError::Locked { .. }), "{refused}");
            return;
        }
        // A store that refuses the replay makes the start fail; the next one finds the same.
        match &self.old {
            Some(_) => self.new = start(Entrance::TakeOver).ok(),
            None => self.old = start(Entrance::Alone).ok(),
        }
        if let (Some(alone), None) = (&self.old, &self.new) {
            assert!(alone.used <= (0..self.next).sum());
        }
    }

    /// The new process is the old one for the next.
    fn promote(&mut self) {
        if self
            .new
            .as_ref()
            .is_some_and(|new| !new.status.taking_over())
        {
            assert!(self.old.is_none(), "it has seen the end of the old one");
            let mut new = self.new.take().unwrap();
            new.look();
            assert!(new.predecessor.as_ref().is_some_and(Predecessor::has_ended));
            assert_eq!(new.used, (0..self.next).sum::<u64>());
            self.old = Some(new);
        }
    }

    fn end(mut self) {
        self.take(Step::Refuse(0));
        self.take(Step::LoseAnswer(0));
        self.take(Step::Kill { new: false });
        while self.new.is_some() {
            self.take(Step::Follow { new: true });
        }
        if let Some(mut last) = self.old.take() {
            last.follow().unwrap();
        }
        let fresh = self.start_alone();
        assert_eq!(fresh.used, (0..self.next).sum::<u64>());
        assert_eq!(fresh.folder.segments().unwrap(), []);
        assert_exactly(&*self.store.inner, 0..self.next);
    }
}

impl World {
    /// A program that another test is just starting has our files open, and the
    /// lock with them, until it runs its own code: that is waited for.
    fn start_alone(&self) -> Process {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        loop {
            match Process::start(self.dir.path(), &self.store, Entrance::Alone) {
                Err(StartError::Locked { .. }) if std::time::Instant::now() < deadline => {
                    std::thread::yield_now();
                }
                started => return started.unwrap(),
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Start),
        5 => (any::<bool>(), 1_u8..5).prop_map(|(new, count)| Step::Commit { new, count }),
        4 => any::<bool>().prop_map(|new| Step::Follow { new }),
        3 => Just(Step::Look),
        2 => prop_oneof![2 => Just(false), 1 => Just(true)].prop_map(|new| Step::Kill { new }),
        1 => (1_u8..3).prop_map(Step::Refuse),
        1 => (1_u8..3).prop_map(Step::LoseAnswer),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn two_boots_and_kills_of_either_count_everything_once(
        steps in prop::collection::vec(step(), 0..60)
    ) {
        let mut world = World {
            dir: tempfile::tempdir().unwrap(),
            store: FlakyStore::default(),
            old: None,
            new: None,
            next: 0,
        };
        for step in steps {
            world.take(step);
        }
        world.end();
    }
}

#[test]
fn files_of_a_living_process_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let store = FlakyStore::default();
    let mut old = Process::start(dir.path(), &store, Entrance::Alone).unwrap();
    old.commit(1..4);
    let mut new = Process::start(dir.path(), &store, Entrance::TakeOver).unwrap();
    assert_eq!(new.used, 0, "committed and not yet in the store");
    new.follow().unwrap();
    assert_eq!(new.folder.segments().unwrap().len(), 1);
    assert_eq!(store.inner.usage_count().unwrap(), 0);

    // It dies with its file; the new one stores that as usage of the old one.
    drop(old);
    new.follow().unwrap();
    new.look();
    assert!(new.status.taking_over(), "not stored yet");
    new.follow().unwrap();
    new.look();
    assert!(new.predecessor.as_ref().is_some_and(Predecessor::has_ended));
    assert_eq!(new.used, 6);
    assert_eq!(new.folder.segments().unwrap(), []);
    assert_exactly(&*store.inner, 1..4);
}
