//! Values and fakes for this crate's tests.

#[path = "../tests/postgres/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "the gateway's tests use it too")]
pub(crate) mod postgres;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use policy::{Cell, Charge, NanoUsd, Timestamp, Usage};

use crate::audit::{AuditHead, AuditKey, AuditRow};
use crate::core::HeartbeatRow;
use crate::data_dir::NodeKey;
use crate::entity::{Change, Entity, EntityWrite, Expect};
use crate::error::{StoreError, WriteError};
use crate::message::{Outcome, WireCell};
use crate::origin::Origin;
use crate::record::{Basis, EndReason, UsageRecord};
use crate::store::{
    Added, FleetStore, Loaded, MemoryStore, Position, Sealed, Sealing, Store, UsagePage,
    UsageQuery, Written,
};

/// When the cells of test records no longer matter.
pub(crate) const EXPIRY: Timestamp = Timestamp(2_000_000_000_000);

/// A process of a node.
pub(crate) const fn origin(node: u128, boot: u64) -> Origin {
    Origin {
        node: NodeKey(node),
        boot,
    }
}

/// A record that differs from every other number's in id, and adds `number` nano-dollars and one
/// request.
pub(crate) fn record(number: u64) -> UsageRecord {
    UsageRecord {
        request_id: format!("{number:032x}"),
        key: "demo".to_owned(),
        team: Some("search".to_owned()),
        customer: None,
        user: Some("ada".to_owned()),
        rule: None,
        model_requested: "gpt \"5\"\n".to_owned(),
        model_served: Some("gpt-5-2026".to_owned()),
        provider: Some("openai".to_owned()),
        credential: None,
        endpoint: "chat_completions".to_owned(),
        stream: number.is_multiple_of(2),
        usage: Usage {
            input: number,
            cache_read: 1,
            cache_write: 2,
            cache_write_1h: 3,
            output: 4,
            reasoning: 5,
        },
        cost: NanoUsd(number),
        basis: Basis::Reported,
        status: 200,
        started_at: Timestamp(1_764_000_000_000 + number),
        first_byte_ms: Some(12),
        duration_ms: 340,
        attempts: 1,
        end: EndReason::Success,
        upstream_request_id: Some("req_é".to_owned()),
        charges: vec![charge("usd", 7, number), charge("requests", 9, 1)],
    }
}

pub(crate) fn charge(counter: &str, epoch: i64, amount: u64) -> Charge {
    Charge {
        counter: counter.into(),
        epoch,
        amount,
        expires_at: EXPIRY,
    }
}

/// The settled amount of one cell.
pub(crate) fn amount(cells: &[Cell], counter: &str) -> u64 {
    cells
        .iter()
        .filter(|cell| cell.counter == counter)
        .map(|cell| cell.amount)
        .sum()
}

/// The newest records, of whatever key.
pub(crate) fn newest(limit: u32) -> UsageQuery<'static> {
    UsageQuery {
        limit,
        older_than: None,
        key: None,
    }
}

/// Asserts that the store holds exactly the records with these numbers, each counted once.
pub(crate) fn assert_exactly(store: &dyn Store, numbers: impl IntoIterator<Item = u64>) {
    let mut numbers: Vec<u64> = numbers.into_iter().collect();
    numbers.sort_unstable();
    let mut ids: Vec<String> = store
        .recent_usage(newest(u32::MAX))
        .expect("a readable store")
        .records
        .into_iter()
        .map(|record| record.request_id)
        .collect();
    ids.reverse();
    let expected: Vec<String> = numbers.iter().map(|n| record(*n).request_id).collect();
    assert_eq!(ids, expected);
    let cells = store
        .load_cells(Timestamp(0))
        .expect("a readable store")
        .cells();
    assert_eq!(amount(&cells, "usd"), numbers.iter().sum::<u64>());
    assert_eq!(amount(&cells, "requests"), numbers.len() as u64);
}

/// A store in memory that fails on demand, and survives the node that uses it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlakyStore {
    pub(crate) inner: Arc<MemoryStore>,
    /// Calls that fail before anything is done.
    pub(crate) refuse: Arc<AtomicUsize>,
    /// Calls that fail after the commit, as when the answer is lost on the way.
    pub(crate) lose_answer: Arc<AtomicUsize>,
    /// Calls made.
    pub(crate) calls: Arc<AtomicU64>,
    /// Calls of the cluster hang while this is locked.
    pub(crate) gate: Arc<Mutex<()>>,
    /// A team that somebody deletes when the next page of entities has been read.
    pub(crate) delete_next: Arc<Mutex<Option<String>>>,
}

impl FlakyStore {
    /// From now on every write fails, or none.
    pub(crate) fn set_down(&self, down: bool) {
        self.refuse
            .store(if down { usize::MAX } else { 0 }, Ordering::SeqCst);
    }
}

impl Store for FlakyStore {
    fn record_usage(&self, origin: Origin, batch: &[UsageRecord]) -> Result<u64, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if spend(&self.refuse) {
            return Err(down("write"));
        }
        let fresh = self.inner.record_usage(origin, batch)?;
        if spend(&self.lose_answer) {
            return Err(down("answer"));
        }
        Ok(fresh)
    }

    fn load_cells(&self, now: Timestamp) -> Result<Loaded, StoreError> {
        self.inner.load_cells(now)
    }

    fn added_cells(&self, origin: Origin, after: Position, most: u32) -> Result<Added, StoreError> {
        self.inner.added_cells(origin, after, most)
    }

    fn expire_cells(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.inner.expire_cells(now)
    }

    fn usage(&self, request_id: &str) -> Result<Option<UsageRecord>, StoreError> {
        self.inner.usage(request_id)
    }

    fn recent_usage(&self, query: UsageQuery<'_>) -> Result<UsagePage, StoreError> {
        self.inner.recent_usage(query)
    }

    fn usage_count(&self) -> Result<u64, StoreError> {
        self.inner.usage_count()
    }

    fn write_entities(
        &self,
        writes: &[EntityWrite],
        change: &Change,
        key: &AuditKey,
    ) -> Result<Written, WriteError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if spend(&self.refuse) {
            return Err(down("write entities").into());
        }
        let written = self.inner.write_entities(writes, change, key)?;
        if spend(&self.lose_answer) {
            return Err(down("answer").into());
        }
        Ok(written)
    }

    fn entities_since(&self, after: u64, most: u32) -> Result<Vec<Entity>, StoreError> {
        if spend(&self.refuse) {
            return Err(down("read entities"));
        }
        let page = self.inner.entities_since(after, most);
        if let Some(name) = self
            .delete_next
            .lock()
            .expect("no test panics in it")
            .take()
        {
            let delete = [entity_write(&name, Expect::Any, None)];
            let key = AuditKey::keyless();
            let deleted = self.inner.write_entities(&delete, &change(&name), &key);
            deleted.expect("it is there");
        }
        page
    }

    fn audit_rows(&self, after_seq: u64, most: u32) -> Result<Vec<AuditRow>, StoreError> {
        self.inner.audit_rows(after_seq, most)
    }

    fn audit_head(&self) -> Result<Option<AuditHead>, StoreError> {
        self.inner.audit_head()
    }
}

impl FlakyStore {
    /// Does it, unless the store is down or its answer gets lost.
    fn try_to<T>(
        &self,
        call: impl FnOnce(&MemoryStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock());
        if spend(&self.refuse) {
            return Err(down("be reached"));
        }
        let done = call(&self.inner)?;
        match spend(&self.lose_answer) {
            true => Err(down("answer")),
            false => Ok(done),
        }
    }
}

impl FleetStore for FlakyStore {
    fn cells_by_origin(&self, now: Timestamp) -> Result<Vec<(Origin, Cell)>, StoreError> {
        self.try_to(|inner| inner.cells_by_origin(now))
    }

    fn flush_cells(&self, cells: &[(Origin, WireCell)]) -> Result<(), StoreError> {
        self.try_to(|inner| inner.flush_cells(cells))
    }

    fn expire_windows(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.inner.expire_windows(now)
    }

    fn heartbeat(&self, origin: Origin, name: &str, region: &str) -> Result<(), StoreError> {
        self.try_to(|inner| inner.heartbeat(origin, name, region))
    }

    fn heartbeats(&self) -> Result<Vec<HeartbeatRow>, StoreError> {
        self.try_to(|inner| inner.heartbeats())
    }

    fn take_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        lease: Duration,
    ) -> Result<Option<u64>, StoreError> {
        self.try_to(|inner| inner.take_term(scope, task, me, lease))
    }

    fn release_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        term: u64,
    ) -> Result<(), StoreError> {
        self.try_to(|inner| inner.release_term(scope, task, me, term))
    }

    fn forget_sealed(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        self.try_to(|inner| inner.forget_sealed(sealing))
    }

    fn present_term(&self, scope: &str, task: &str) -> Result<Option<u64>, StoreError> {
        self.try_to(|inner| inner.present_term(scope, task))
    }

    fn save_outcome(&self, outcome: &Outcome) -> Result<bool, StoreError> {
        self.try_to(|inner| inner.save_outcome(outcome))
    }

    fn outcomes(&self) -> Result<Vec<Outcome>, StoreError> {
        self.try_to(|inner| inner.outcomes())
    }

    fn seal_windows(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        self.try_to(|inner| inner.seal_windows(sealing))
    }
}

fn spend(failures: &AtomicUsize) -> bool {
    let take = |left: usize| match left {
        0 => None,
        usize::MAX => Some(usize::MAX),
        left => Some(left - 1),
    };
    failures
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, take)
        .is_ok()
}

fn down(action: &'static str) -> StoreError {
    StoreError::Failed {
        action,
        source: "the store is down".into(),
    }
}

/// A change of a team's name.
/// For what must not be lost in a test: the test fails where it was.
pub(crate) fn fatal(why: &str) {
    panic!("the process would have ended: {why}");
}

pub(crate) fn change(name: &str) -> Change {
    Change {
        at: Timestamp(1_764_000_000_123),
        actor: "ops".to_owned(),
        peer: "127.0.0.1:4000".to_owned(),
        action: "create".to_owned(),
        kind: "team".to_owned(),
        name: name.to_owned(),
        before: None,
        after: Some("{\"name\":\"***\"}".to_owned()),
    }
}

pub(crate) fn entity_write(name: &str, expect: Expect, body: Option<&str>) -> EntityWrite {
    EntityWrite {
        kind: "team".to_owned(),
        name: name.to_owned(),
        expect,
        body: body.map(str::to_owned),
    }
}
