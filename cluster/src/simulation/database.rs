//! A model of the shared database: what each request of a node's store does to it.
//!
//! It keeps the rules that the real one keeps: cells only grow, a term is taken only when its lease
//! is over or by its holder, an outcome of an older term than the stored one is refused. Its own
//! clock is the true one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policy::Timestamp;

use super::clock::true_time;
use super::scenario::Sabotage;
use super::shelf::Entities;
use crate::core::{GONE, HeartbeatRow, StoreReply, StoreRequest};
use crate::data_dir::NodeKey;
use crate::entity::Entity;
use crate::message::{Outcome, WireCell};
use crate::origin::Origin;

/// How long a term lasts unless it is renewed.
const LEASE: Duration = Duration::from_secs(20);

/// The rows.
#[derive(Debug, Default)]
pub(super) struct Database {
    cells: BTreeMap<(Origin, Arc<str>, i64), Stored>,
    heartbeats: BTreeMap<NodeKey, Heartbeat>,
    terms: BTreeMap<(String, String), Term>,
    outcomes: BTreeMap<(String, String), Outcome>,
    entities: Vec<Entity>,
    /// Every term that was ever given, with whom it was given to: the proof that no two have one.
    given: BTreeMap<(String, String, u64), Origin>,
    sabotage: Option<Sabotage>,
}

#[derive(Clone, Copy, Debug)]
struct Stored {
    used: u64,
    expires_at: Timestamp,
}

#[derive(Debug)]
struct Heartbeat {
    origin: Origin,
    name: String,
    region: String,
    at: Duration,
}

#[derive(Debug)]
struct Term {
    term: u64,
    holder: Origin,
    until: Duration,
}

/// Who asks.
#[derive(Clone, Debug)]
pub(super) struct Client {
    pub(super) origin: Origin,
    pub(super) name: String,
    pub(super) region: String,
}

// === impl Database ===

impl Database {
    pub(super) fn new(sabotage: Option<Sabotage>) -> Self {
        Self {
            sabotage,
            ..Self::default()
        }
    }

    /// Does what was asked.
    pub(super) fn serve(
        &mut self,
        client: &Client,
        request: StoreRequest,
        now: Duration,
    ) -> StoreReply {
        match request {
            StoreRequest::Heartbeat => {
                self.beat(client, now);
                StoreReply::Heartbeat(Ok(()))
            }
            StoreRequest::Goodbye => {
                let gone = Client {
                    name: GONE.to_owned(),
                    ..client.clone()
                };
                self.beat(&gone, now);
                StoreReply::Heartbeat(Ok(()))
            }
            StoreRequest::Heartbeats => StoreReply::Heartbeats(Ok(self.rows(now))),
            StoreRequest::LoadCells => StoreReply::LoadCells(Ok(self.live_cells(now))),
            StoreRequest::FlushCells(cells) => {
                for (origin, cell) in &cells {
                    self.raise(*origin, cell);
                }
                StoreReply::FlushCells {
                    cells,
                    result: Ok(()),
                }
            }
            StoreRequest::TakeTerm { scope, task } => {
                let result = Ok(self.take_term(&scope, &task, client.origin, now));
                StoreReply::TakeTerm {
                    scope,
                    task,
                    result,
                }
            }
            StoreRequest::ReleaseTerm { scope, task, term } => {
                self.release_term(scope, task, term, client.origin, now);
                StoreReply::ReleaseTerm(Ok(()))
            }
            StoreRequest::ReadTerm { scope, task } => self.read_term(scope, task),
            StoreRequest::SaveOutcome(outcome) => {
                let (task, scope, term) =
                    (outcome.task.clone(), outcome.scope.clone(), outcome.term);
                let result = Ok(self.save(outcome));
                StoreReply::SaveOutcome {
                    task,
                    scope,
                    term,
                    result,
                }
            }
            StoreRequest::LoadOutcomes => {
                StoreReply::LoadOutcomes(Ok(self.outcomes.values().cloned().collect()))
            }
            StoreRequest::EntitiesSince { after } => StoreReply::EntitiesSince {
                after,
                result: Ok(self.entities_since(after)),
            },
            StoreRequest::SealWindows { term } => StoreReply::SealWindows {
                term,
                result: Ok(0),
            },
        }
    }

    fn read_term(&self, scope: String, task: String) -> StoreReply {
        let row = self.terms.get(&(scope.clone(), task.clone()));
        let result = Ok(row.map(|row| row.term));
        StoreReply::ReadTerm {
            scope,
            task,
            result,
        }
    }

    /// What an origin is known to have used in one epoch of a counter.
    pub(super) fn used(&self, origin: Origin, counter: &Arc<str>, epoch: i64) -> u64 {
        let key = (origin, Arc::clone(counter), epoch);
        self.cells.get(&key).map_or(0, |stored| stored.used)
    }

    /// Every cell: origin, counter, epoch, amount.
    pub(super) fn cells(&self) -> impl Iterator<Item = (Origin, &Arc<str>, i64, u64)> {
        let cells = self.cells.iter();
        cells.map(|((origin, counter, epoch), stored)| (*origin, counter, *epoch, stored.used))
    }

    /// Who was given a term.
    pub(super) fn holder(&self, scope: &str, task: &str, term: u64) -> Option<Origin> {
        let key = (scope.to_owned(), task.to_owned(), term);
        self.given.get(&key).copied()
    }

    /// The newest state of each entity, as it was at a revision.
    pub(super) fn entities_at(&self, revision: u64) -> Entities {
        let until = self.entities.iter();
        let until = until.filter(|entity| entity.revision <= revision);
        until
            .map(|entity| ((entity.kind.clone(), entity.name.clone()), entity.clone()))
            .collect()
    }

    pub(super) fn revision(&self) -> u64 {
        self.entities.len() as u64
    }

    pub(super) fn write(&mut self, name: String, body: Option<Box<str>>, now: Duration) -> Entity {
        let entity = Entity {
            kind: "virtual_key".to_owned(),
            name,
            revision: self.entities.len() as u64 + 1,
            body,
            changed_at: true_time(now),
        };
        self.entities.push(entity.clone());
        entity
    }

    fn beat(&mut self, client: &Client, now: Duration) {
        let row = Heartbeat {
            origin: client.origin,
            name: client.name.clone(),
            region: client.region.clone(),
            at: now,
        };
        let older = self.heartbeats.get(&client.origin.node);
        if older.is_none_or(|older| older.origin.boot <= client.origin.boot) {
            self.heartbeats.insert(client.origin.node, row);
        }
    }

    fn rows(&self, now: Duration) -> Vec<HeartbeatRow> {
        let rows = self.heartbeats.values();
        rows.map(|row| HeartbeatRow {
            origin: row.origin,
            name: row.name.clone(),
            region: row.region.clone(),
            stale_for: now.saturating_sub(row.at),
        })
        .collect()
    }

    fn live_cells(&self, now: Duration) -> Vec<(Origin, WireCell)> {
        let live = self.cells.iter();
        live.filter(|(_, stored)| stored.expires_at > true_time(now))
            .map(|((origin, counter, epoch), stored)| {
                let cell = WireCell {
                    counter: Arc::clone(counter),
                    epoch: *epoch,
                    ver: 0,
                    used: stored.used,
                    held: 0,
                    expires_at: stored.expires_at,
                };
                (*origin, cell)
            })
            .collect()
    }

    fn raise(&mut self, origin: Origin, cell: &WireCell) {
        let key = (origin, Arc::clone(&cell.counter), cell.epoch);
        let stored = self.cells.entry(key).or_insert(Stored {
            used: 0,
            expires_at: cell.expires_at,
        });
        stored.used = stored.used.max(cell.used);
        stored.expires_at = stored.expires_at.max(cell.expires_at);
    }

    fn take_term(&mut self, scope: &str, task: &str, by: Origin, now: Duration) -> Option<u64> {
        if self.sabotage == Some(Sabotage::OneTermForAll) {
            self.given
                .insert((scope.to_owned(), task.to_owned(), 1), by);
            return Some(1);
        }
        let key = (scope.to_owned(), task.to_owned());
        let row = self.terms.entry(key).or_insert(Term {
            term: 0,
            holder: by,
            until: Duration::ZERO,
        });
        if row.until >= now && row.holder.node != by.node {
            return None;
        }
        row.term += 1;
        row.holder = by;
        row.until = now + LEASE;
        self.given
            .insert((scope.to_owned(), task.to_owned(), row.term), by);
        Some(row.term)
    }

    fn release_term(&mut self, scope: String, task: String, term: u64, by: Origin, now: Duration) {
        if let Some(row) = self.terms.get_mut(&(scope, task))
            && row.term == term
            && row.holder == by
        {
            row.until = now.saturating_sub(Duration::from_millis(1));
        }
    }

    fn save(&mut self, outcome: Outcome) -> bool {
        let key = (outcome.scope.clone(), outcome.task.clone());
        let present = self.terms.get(&key).map_or(0, |row| row.term);
        let stored = self.outcomes.get(&key).map_or(0, |stored| stored.term);
        if outcome.term < present || outcome.term < stored {
            return false;
        }
        self.outcomes.insert(key, outcome);
        true
    }

    pub(super) fn entities_since(&self, after: u64) -> Vec<Entity> {
        let all = self.entities.iter();
        all.filter(|entity| entity.revision > after)
            .cloned()
            .collect()
    }
}
