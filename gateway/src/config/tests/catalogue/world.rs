//! A file, a store that can go away, and who writes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cluster::audit::AuditKey;
use cluster::{Change, Entity, EntityWrite, Expect, Persisted, REVOCATION, StoreError, WriteError};
use policy::{CounterTable, ManualClock, Timestamp};
use serde_json::Value;
use tempfile::TempDir;

use super::super::lines;
use crate::config::catalogue::{Actor, Catalogue, Fleet, Ledger, PointerProblem, WriteRefusal};
use crate::config::{Environment, Problem, ReloaderParts, Started, start};
use crate::state::Live;
use crate::upstream::ClientPool;

/// Noon of a day.
pub(super) const NOW: Timestamp = Timestamp(1_800_000_000_000);

pub(super) const FILE: &str = "\
version: 1
encryption: {keys: [{id: k1, value: 0123456789abcdef0123456789abcdef}]}
providers:
  - {name: openai, kind: openai, base_url: https://a.example, keys: [{name: main, value: sk-file}]}
models:
  - {name: gpt, provider: openai, price: free}
customers: [{name: acme}]
teams: [{name: search, customer: acme, rate_limits: [{requests: 5, every: 1m}]}]
virtual_keys:
  - {name: filed, value: sk-tyr-of-the-file-0, team: search, providers: [{name: openai}], rate_limits: [{requests: 9, every: 1m}]}
";

/// Entities in memory.
#[derive(Default)]
pub(super) struct Shelf {
    pub(super) away: AtomicBool,
    /// What happens while the next write is under way.
    pub(super) during: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    revision: u64,
    entities: Vec<Entity>,
    changes: Vec<Change>,
    others: Vec<Entity>,
    sent: Vec<Entity>,
    adopted: Vec<String>,
}

impl std::fmt::Debug for Shelf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shelf").finish_non_exhaustive()
    }
}

impl Shelf {
    fn store(&self) -> Result<(), StoreError> {
        match self.away.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(StoreError::Failed {
                action: "answer",
                source: "it is away".into(),
            }),
        }
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        self.kept.lock().expect("no panic").changes.clone()
    }

    pub(super) fn entities(&self) -> Vec<Entity> {
        self.kept.lock().expect("no panic").entities.clone()
    }

    /// Another process wrote this, and it comes now.
    pub(super) fn pushed(&self, entity: Entity) {
        self.kept.lock().expect("no panic").others.push(entity);
    }

    /// A peer sends this: it comes whether the store is away or not.
    pub(super) fn sent(&self, entity: Entity) {
        let mut kept = self.kept.lock().expect("no panic");
        kept.revision = kept.revision.max(entity.revision);
        kept.sent.push(entity);
    }

    /// Whether everything that others wrote was read.
    pub(super) fn is_read(&self) -> bool {
        self.kept.lock().expect("no panic").others.is_empty()
    }

    /// Revocations that peers told of.
    pub(super) fn adopted(&self) -> Vec<String> {
        self.kept.lock().expect("no panic").adopted.clone()
    }

    /// Another process writes.
    pub(super) fn elsewhere(&self, kind: &str, name: &str, body: Option<&str>) {
        let mut kept = self.kept.lock().expect("no panic");
        kept.revision += 1;
        let entity = Entity {
            kind: kind.to_owned(),
            name: name.to_owned(),
            revision: kept.revision,
            body: body.map(Into::into),
            changed_at: NOW,
        };
        kept.others.push(entity);
    }
}

impl Ledger for Shelf {
    fn write(&self, writes: &[EntityWrite], change: &Change) -> Result<Vec<Entity>, WriteError> {
        self.store()?;
        let during = self.during.lock().expect("no panic").take();
        if let Some(during) = during {
            during();
        }
        let mut kept = self.kept.lock().expect("no panic");
        for write in writes {
            let there = kept.entities.iter().find(|entity| {
                entity.kind == write.kind && entity.name == write.name && entity.body.is_some()
            });
            let found = there.map(|entity| entity.revision);
            let fits = match write.expect {
                Expect::Any => true,
                Expect::Absent => found.is_none(),
                Expect::Revision(revision) => found == Some(revision),
            };
            if !fits {
                return Err(WriteError::Stale { found });
            }
        }
        kept.revision += 1;
        let revision = kept.revision;
        let written = writes.iter().map(|write| Entity {
            kind: write.kind.clone(),
            name: write.name.clone(),
            revision,
            body: write.body.as_deref().map(Into::into),
            changed_at: NOW,
        });
        let written: Vec<Entity> = written.collect();
        for entity in &written {
            kept.entities
                .retain(|old| (&old.kind, &old.name) != (&entity.kind, &entity.name));
            kept.entities.push(entity.clone());
        }
        kept.changes.push(change.clone());
        Ok(written)
    }

    fn poll(&self) -> Result<Vec<Entity>, StoreError> {
        let mut kept = self.kept.lock().expect("no panic");
        if !kept.sent.is_empty() {
            return Ok(std::mem::take(&mut kept.sent));
        }
        self.store()?;
        Ok(std::mem::take(&mut kept.others))
    }

    fn revoke(&self, hash: &str, change: &Change) -> Result<Persisted, WriteError> {
        let write = EntityWrite {
            kind: REVOCATION.to_owned(),
            name: hash.to_owned(),
            expect: Expect::Any,
            body: Some("{}".to_owned()),
        };
        match self.write(&[write], change) {
            Ok(_) => Ok(Persisted(true)),
            Err(_) => Ok(Persisted(false)),
        }
    }

    fn record(&self, change: &Change) -> Result<(), StoreError> {
        self.store()?;
        self.kept
            .lock()
            .expect("no panic")
            .changes
            .push(change.clone());
        Ok(())
    }

    fn adopt_revocation(&self, hash: &str, _change: &Change) {
        let mut kept = self.kept.lock().expect("no panic");
        kept.adopted.push(hash.to_owned());
    }

    fn revision(&self) -> u64 {
        self.kept.lock().expect("no panic").revision
    }

    fn use_audit_key(&self, _key: AuditKey) {}
}

/// A node's configuration, running.
pub(super) struct World {
    folder: TempDir,
    pub(super) shelf: Arc<Shelf>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) started: Started,
}

impl World {
    pub(super) fn new() -> Self {
        Self::of(FILE, Arc::default())
    }

    /// With this file and this store, as a restart has them.
    pub(super) fn of(file: &str, shelf: Arc<Shelf>) -> Self {
        Self::try_of(file, shelf).unwrap_or_else(|problems| panic!("{}", lines(&problems)))
    }

    pub(super) fn try_of(file: &str, shelf: Arc<Shelf>) -> Result<Self, Vec<Problem>> {
        let ledger = Arc::clone(&shelf) as Arc<dyn Ledger>;
        Self::try_with(file, shelf, ledger, None)
    }

    /// With this file, this ledger and these other nodes.
    pub(super) fn with(
        file: &str,
        shelf: Arc<Shelf>,
        ledger: Arc<dyn Ledger>,
        fleet: Option<Arc<dyn Fleet>>,
    ) -> Self {
        Self::try_with(file, shelf, ledger, fleet)
            .unwrap_or_else(|problems| panic!("{}", lines(&problems)))
    }

    fn try_with(
        file: &str,
        shelf: Arc<Shelf>,
        ledger: Arc<dyn Ledger>,
        fleet: Option<Arc<dyn Fleet>>,
    ) -> Result<Self, Vec<Problem>> {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("t.yaml");
        std::fs::write(&path, file).expect("a file");
        let clock = Arc::new(ManualClock::new(NOW));
        let started = start(ReloaderParts {
            path,
            environment: Environment::of([].into(), PathBuf::from(Path::new(folder.path()))),
            counters: Arc::new(CounterTable::new()),
            clients: Arc::new(ClientPool::new()),
            clock: clock.clone(),
            on_reload: Box::new(|_| {}),
        })?;
        let loaded = shelf.entities();
        let loaded = loaded.into_iter().filter(|entity| entity.body.is_some());
        started.catalogue.open(ledger, loaded.collect(), fleet)?;
        Ok(World {
            folder,
            shelf,
            clock,
            started,
        })
    }

    /// Reads another file; the problems without the folder.
    pub(super) fn reload(&self, file: &str) -> Result<(), String> {
        let path = self.folder.path().join("t.yaml");
        std::fs::write(path, file).expect("a file");
        let folder = format!("{}/", self.folder.path().display());
        let reloaded = self.started.reloader.reload();
        reloaded
            .map(|_| ())
            .map_err(|problems| lines(&problems).replace(&folder, ""))
    }

    pub(super) fn live(&self) -> Arc<Live> {
        self.started.live.load_full()
    }

    pub(super) fn catalogue(&self) -> &Catalogue {
        &self.started.catalogue
    }
}

pub(super) fn actor() -> Actor {
    Actor {
        name: "ops".to_owned(),
        peer: "127.0.0.1".to_owned(),
    }
}

/// A JSON value from text.
pub(super) fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("the test writes JSON")
}

/// Each problem as `pointer: message`.
pub(super) fn invalid(refusal: WriteRefusal) -> String {
    match refusal {
        WriteRefusal::Invalid(problems) => {
            let told =
                |problem: &PointerProblem| format!("{}: {}", problem.pointer, problem.message);
            problems.iter().map(told).collect::<Vec<_>>().join("\n")
        }
        other => panic!("{other:?}"),
    }
}
