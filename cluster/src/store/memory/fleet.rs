//! The fleet's side of the store in memory.

use std::collections::btree_map::Entry;
use std::time::{Duration, Instant};

use policy::{Cell, Timestamp};

use super::{MemoryStore, Tables};
use crate::core::HeartbeatRow;
use crate::error::StoreError;
use crate::message::{Outcome, WireCell};
use crate::origin::Origin;
use crate::store::fleet::{ENDED_KEPT_MS, is_sealed};
use crate::store::{CLUSTER_SCOPE, FleetStore, SEAL_AFTER_MS, SEAL_TASK, Sealed, Sealing, Sums};

/// The time here, which stands still.
const OWN_CLOCK: Timestamp = Timestamp(1_900_000_000_000);

/// A term and who holds it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Term {
    number: u64,
    holder: Origin,
    until: Instant,
}

impl FleetStore for MemoryStore {
    fn cells_by_origin(&self, now: Timestamp) -> Result<Vec<(Origin, Cell)>, StoreError> {
        Ok(self.tables().live_cells(now))
    }

    fn flush_cells(&self, cells: &[(Origin, WireCell)]) -> Result<(), StoreError> {
        let mut tables = self.tables();
        for (origin, cell) in cells {
            let key = (cell.counter.to_string(), cell.epoch, *origin);
            let kept = tables.cells.entry(key).or_default();
            kept.live = kept.live.max(cell.used.min(i64::MAX as u64));
            kept.expires_at = kept.expires_at.max(cell.expires_at);
        }
        Ok(())
    }

    fn expire_windows(&self, now: Timestamp) -> Result<u64, StoreError> {
        let mut tables = self.tables();
        let before = tables.cells.len();
        let ended = now.min(OWN_CLOCK).0.saturating_sub(ENDED_KEPT_MS);
        tables.cells.retain(|(counter, _, _), kept| {
            kept.expires_at.0 > ended || (kept.amount > 0 && is_sealed(counter))
        });
        Ok((before - tables.cells.len()) as u64)
    }

    fn heartbeat(&self, origin: Origin, name: &str, region: &str) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let beats = &mut tables.heartbeats;
        if beats
            .get(&origin.node)
            .is_none_or(|(row, _)| row.origin.boot <= origin.boot)
        {
            let row = HeartbeatRow {
                origin,
                name: name.to_owned(),
                region: region.to_owned(),
                stale_for: Duration::ZERO,
            };
            beats.insert(origin.node, (row, Instant::now()));
        }
        Ok(())
    }

    fn heartbeats(&self) -> Result<Vec<HeartbeatRow>, StoreError> {
        let tables = self.tables();
        let rows = tables.heartbeats.values().map(|(row, at)| HeartbeatRow {
            stale_for: at.elapsed(),
            ..row.clone()
        });
        Ok(rows.collect())
    }

    fn take_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        lease: Duration,
    ) -> Result<Option<u64>, StoreError> {
        let mut tables = self.tables();
        let now = Instant::now();
        let key = (scope.to_owned(), task.to_owned());
        let number = match tables.terms.get(&key) {
            None => 1,
            Some(term) if term.until > now && term.holder == me => term.number,
            Some(term) if term.until <= now || term.holder.node == me.node => term.number + 1,
            Some(_) => return Ok(None),
        };
        let term = Term {
            number,
            holder: me,
            until: now + lease,
        };
        tables.terms.insert(key, term);
        Ok(Some(number))
    }

    fn release_term(
        &self,
        scope: &str,
        task: &str,
        me: Origin,
        term: u64,
    ) -> Result<(), StoreError> {
        let mut tables = self.tables();
        let held = tables.terms.get_mut(&(scope.to_owned(), task.to_owned()));
        if let Some(held) = held.filter(|held| held.holder == me && held.number == term) {
            held.until = Instant::now();
        }
        Ok(())
    }

    fn present_term(&self, scope: &str, task: &str) -> Result<Option<u64>, StoreError> {
        let tables = self.tables();
        let term = tables.terms.get(&(scope.to_owned(), task.to_owned()));
        Ok(term.map(|term| term.number))
    }

    fn save_outcome(&self, outcome: &Outcome) -> Result<bool, StoreError> {
        let mut tables = self.tables();
        let key = (outcome.scope.clone(), outcome.task.clone());
        let taken = tables.terms.get(&key).map_or(0, |term| term.number);
        let kept = tables.outcomes.get(&key).map_or(0, |kept| kept.term);
        if taken.max(kept) > outcome.term {
            return Ok(false);
        }
        tables.outcomes.insert(key, outcome.clone());
        Ok(true)
    }

    fn outcomes(&self) -> Result<Vec<Outcome>, StoreError> {
        Ok(self.tables().outcomes.values().cloned().collect())
    }

    fn seal_windows(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        let mut tables = self.tables();
        match tables.holds(sealing) {
            true => {
                let latest = Timestamp(OWN_CLOCK.0 - SEAL_AFTER_MS);
                Ok(tables.seal(Sealing {
                    before: sealing.before.min(latest),
                    ..sealing
                }))
            }
            false => Ok(STALE),
        }
    }

    fn forget_sealed(&self, sealing: Sealing) -> Result<Sealed, StoreError> {
        let mut tables = self.tables();
        match tables.holds(sealing) {
            true => Ok(tables.forget_sealed(sealing)),
            false => Ok(STALE),
        }
    }
}

const STALE: Sealed = Sealed {
    windows: 0,
    late: 0,
    stale: true,
    more: false,
};

impl Tables {
    fn holds(&self, sealing: Sealing) -> bool {
        let key = (CLUSTER_SCOPE.to_owned(), SEAL_TASK.to_owned());
        self.terms.get(&key).is_some_and(|term| {
            term.holder == sealing.me && term.number == sealing.term && term.until > Instant::now()
        })
    }

    fn forget_sealed(&mut self, sealing: Sealing) -> Sealed {
        let mut old: Vec<_> = self
            .sealed
            .iter()
            .filter(|(_, ended)| **ended <= sealing.before)
            .map(|(window, ended)| (*ended, window.clone()))
            .collect();
        old.sort_unstable();
        old.truncate(sealing.most as usize);
        let kept = self.late.len();
        for (_, window) in &old {
            self.sealed.remove(window);
            self.late.retain(|(late, _)| late != window);
        }
        Sealed {
            windows: old.len() as u64,
            late: (kept - self.late.len()) as u64,
            stale: false,
            more: old.len() >= sealing.most as usize,
        }
    }

    pub(super) fn live_cells(&self, now: Timestamp) -> Vec<(Origin, Cell)> {
        let cells = self.cells.iter().filter(|(_, kept)| kept.expires_at > now);
        let cell = |((counter, epoch, origin), kept): (&(String, i64, Origin), &super::Kept)| {
            let cell = Cell {
                counter: counter.clone(),
                epoch: *epoch,
                amount: kept.amount.max(kept.live),
                expires_at: kept.expires_at,
            };
            (*origin, cell)
        };
        cells.map(cell).collect()
    }

    fn seal(&mut self, sealing: Sealing) -> Sealed {
        let mut windows: Vec<(String, i64)> = self
            .cells
            .iter()
            .filter(|((counter, ..), kept)| {
                kept.expires_at <= sealing.before && kept.amount > 0 && is_sealed(counter)
            })
            .map(|((counter, epoch, _), _)| (counter.clone(), *epoch))
            .collect();
        windows.dedup();
        let more = windows.len() > sealing.most as usize;
        windows.truncate(sealing.most as usize);
        let mut done = Sealed {
            more,
            ..Sealed::default()
        };
        for window in windows {
            let mut sums = Sums::default();
            self.cells.retain(|(counter, epoch, _), kept| {
                let is_of_it = (counter, *epoch) == (&window.0, window.1);
                let goes = is_of_it && kept.expires_at <= sealing.before;
                if goes {
                    sums.add(Cell {
                        counter: counter.clone(),
                        epoch: *epoch,
                        amount: kept.amount,
                        expires_at: kept.expires_at,
                    });
                }
                !goes
            });
            let cells = sums.cells();
            let amount: u64 = cells.iter().map(|cell| cell.amount).sum();
            let ended = cells.iter().map(|cell| cell.expires_at).max();
            match self.sealed.entry(window) {
                Entry::Occupied(sealed) => {
                    self.late.push((sealed.key().clone(), amount));
                    done.late += 1;
                }
                Entry::Vacant(fresh) => {
                    fresh.insert(ended.unwrap_or_default());
                    done.windows += 1;
                }
            }
        }
        done
    }
}
