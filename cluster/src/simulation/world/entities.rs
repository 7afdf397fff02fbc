//! Entities: written through any node, and spread in three ways that each may be late or fail: the
//! writer pushes them to its peers, the database notifies who listens, and everybody polls it.

use std::time::Duration;

use super::super::links::Life;
use super::super::scenario::{Health, Sabotage};
use super::super::shelf::{Entities, Shelf};
use super::store::PATIENCE;
use super::{Event, World};
use crate::core::Command;
use crate::entity::Entity;

/// How often a process asks the database what is new.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// Part of the notifications that get lost.
const UNHEARD: f64 = 0.3;

/// Part of the writes that delete.
const DELETING: f64 = 0.3;

/// Names that are written.
const NAMES: usize = 5;

impl World {
    /// What a process that starts now begins with: what the database has, or what its node kept.
    pub(super) fn first_shelf(&self, node: usize) -> Shelf {
        let (entities, revision) = match self.health {
            Health::Well => (
                self.database.entities_at(u64::MAX),
                self.database.revision(),
            ),
            _ => self.nodes[node].kept.clone(),
        };
        Shelf::of(entities, revision)
    }

    /// The writes and polls of a process begin.
    pub(super) fn begin_entities(&mut self, node: usize, life: Life, revision: u64) {
        self.command(node, Command::Applied { revision });
        let phase = self.chance.time(Duration::ZERO, POLL_EVERY);
        self.agenda.after(phase, Event::PollDue { node, life });
    }

    /// Somebody writes or deletes an entity at a node.
    pub(super) fn write(&mut self, node: usize) {
        let Some(process) = self.nodes[node].process.as_ref() else {
            return;
        };
        if process.paused.is_some() || self.health == Health::Down {
            return;
        }
        let life = process.life;
        let name = format!("key-{}", self.chance.index(NAMES));
        let body = (!self.chance.happens(DELETING)).then(|| format!("{{\"n\":{}}}", self.events));
        let now = self.now();
        let entity = self.database.write(name, body.map(Into::into), now);
        self.notify();
        let known = self.health != Health::LosesAnswers || self.chance.happens(0.5);
        if known {
            let way = self.store_way();
            self.agenda
                .after(way, Event::Written { node, life, entity });
        }
    }

    /// The writer has its answer.
    pub(super) fn written(&mut self, node: usize, entity: Entity) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        process.shelf.wrote(entity.clone());
        let revision = process.shelf.revision;
        self.command(node, Command::Announce(vec![entity]));
        self.command(node, Command::Applied { revision });
    }

    fn notify(&mut self) {
        if self.health != Health::Well {
            return;
        }
        for node in 0..self.nodes.len() {
            let heard = !self.chance.happens(UNHEARD);
            let after = self.store_way();
            if let (true, Some(process)) = (heard, &self.nodes[node].process) {
                let life = process.life;
                self.agenda.after(after, Event::Poll { node, life });
            }
        }
    }

    pub(super) fn poll_due(&mut self, node: usize, life: Life) {
        self.agenda.after(POLL_EVERY, Event::PollDue { node, life });
        self.poll(node);
    }

    /// Uses what was pushed, and asks the database for what is new.
    pub(super) fn poll(&mut self, node: usize) {
        let way = self.store_way();
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        process.shelf.take_offers();
        if std::mem::replace(&mut process.shelf.polling, true) {
            process.shelf.again = true;
            return;
        }
        let life = process.life;
        self.agenda.after(way, Event::PollServed { node, life });
    }

    /// The question has come to the database.
    pub(super) fn poll_served(&mut self, node: usize, life: Life) {
        let way = self.store_way();
        let Some(process) = self.nodes[node].living(life) else {
            return;
        };
        let (after, result) = match self.health {
            Health::Down => (PATIENCE, None),
            Health::LosesAnswers if self.chance.happens(0.5) => (PATIENCE, None),
            _ => {
                let revision = process.shelf.revision;
                (way, Some(self.database.entities_since(revision)))
            }
        };
        self.agenda
            .after(after, Event::Polled { node, life, result });
    }

    /// Its answer; `None`: there was none.
    pub(super) fn polled(&mut self, node: usize, result: Option<Vec<Entity>>) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        process.shelf.polling = false;
        let more = result.as_ref().is_some_and(|page| !page.is_empty());
        let told = result.is_some();
        process.shelf.take_over(result.unwrap_or_default());
        let again = std::mem::take(&mut process.shelf.again);
        let revision = process.shelf.revision;
        if more || again && told {
            self.poll(node);
        } else if told {
            self.command(node, Command::Applied { revision });
        }
    }

    /// A peer has pushed entities.
    pub(super) fn offered(&mut self, node: usize, after: u64, entities: Vec<Entity>) {
        let careless = self.scenario.sabotage == Some(Sabotage::SkipEntities);
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if careless {
            process.shelf.take_over(entities);
        } else if !process.shelf.offer(after, entities) {
            return;
        }
        self.poll(node);
    }

    /// Who says to have everything up to a revision has it, and nobody is said to have more.
    pub(super) fn watch_entities(&mut self) {
        for node in 0..self.nodes.len() {
            let Some(process) = &self.nodes[node].process else {
                continue;
            };
            let shelf = &process.shelf;
            let mut expected = self.known_at(shelf.revision).into_iter();
            // What it wrote itself may be newer.
            let lacks = expected.any(|(key, entity)| {
                let has = shelf.entities.get(&key);
                has.is_none_or(|has| has.revision < entity.revision)
            });
            if lacks {
                let (name, revision) = (&self.nodes[node].name, shelf.revision);
                let what = format!("entities: {name} lacks some up to revision {revision}");
                return self.violate(what);
            }
            if let Some(what) = self.overstated(node) {
                return self.violate(what);
            }
        }
    }

    /// What of the newest states everybody could know by a revision.
    fn known_at(&self, revision: u64) -> Entities {
        self.database.entities_at(revision)
    }

    fn overstated(&self, node: usize) -> Option<String> {
        let here = &self.nodes[node];
        let view = here.process.as_ref()?.core.applied_by();
        view.iter().find_map(|(origin, applied)| {
            let mut nodes = self.nodes.iter();
            let there = nodes.find_map(|node| {
                let process = node.process.as_ref()?;
                (process.origin == *origin).then_some((node, process))
            });
            let (other, process) = there?;
            (*applied > process.shelf.revision).then(|| {
                format!(
                    "entities: {} says that {} has revision {applied}, and it has {}",
                    here.name, other.name, process.shelf.revision
                )
            })
        })
    }

    /// Everybody has what the database has.
    pub(in super::super) fn entities_differ(&self) -> Option<String> {
        let (newest, revision) = (self.known_at(u64::MAX), self.database.revision());
        self.nodes.iter().find_map(|node| {
            let shelf = &node.process.as_ref()?.shelf;
            let same = shelf.entities == newest && shelf.revision == revision;
            (!same).then(|| {
                format!(
                    "I5: {} has entities up to {}, there are {revision}",
                    node.name, shelf.revision
                )
            })
        })
    }

    /// One way to the database, or back.
    fn store_way(&mut self) -> Duration {
        let way = self
            .chance
            .time(Duration::from_micros(500), Duration::from_millis(5));
        match self.health {
            Health::Slow(by) => way + by,
            _ => way,
        }
    }
}
