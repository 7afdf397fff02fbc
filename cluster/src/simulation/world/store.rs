//! What processes ask of the database: one thing at a time each, in order, with the delay and the
//! losses of the moment.

use std::time::Duration;

use super::super::links::Life;
use super::super::scenario::{Health, Sabotage};
use super::{Event, World};
use crate::core::{Input, StoreReply, StoreRequest};

/// Requests to the store that a core may have open at once, however long an outage lasts.
const MOST_ASKED: usize = 32;

/// A database that does not answer is given up after this.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

impl World {
    pub(super) fn ask_store(&mut self, node: usize, request: StoreRequest) {
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if let StoreRequest::FlushCells(cells) = &request
            && cells.len() > crate::message::BATCH_CELLS
        {
            let cells = cells.len();
            self.violate(format_args!("a flush of {cells} cells"));
            return;
        }
        process.store.push_back(request);
        let waiting = process.store.len();
        self.seen.most_asked = self.seen.most_asked.max(waiting);
        if waiting > MOST_ASKED {
            self.violate(format_args!("I9: {waiting} requests wait for the store"));
        }
        self.ask_next(node);
    }

    fn ask_next(&mut self, node: usize) {
        let way = self
            .chance
            .time(Duration::from_micros(500), Duration::from_millis(5));
        let slow = match self.health {
            Health::Slow(by) => by,
            _ => Duration::ZERO,
        };
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.store_busy {
            return;
        }
        if let Some(request) = process.store.pop_front() {
            process.store_busy = true;
            let life = process.life;
            self.agenda.after(
                way + slow,
                Event::Serve {
                    node,
                    life,
                    request,
                },
            );
        }
    }

    /// The request has come to the database. It is served even if the process has gone.
    pub(super) fn serve(&mut self, node: usize, life: Life, request: StoreRequest) {
        let now = self.agenda.now();
        let Some(client) = self.seen.client(node, life) else {
            return;
        };
        if self.scenario.sabotage == Some(Sabotage::ForgetCells)
            && let StoreRequest::FlushCells(cells) = request
        {
            let reply = StoreReply::FlushCells {
                cells,
                result: Ok(()),
            };
            return self
                .agenda
                .after(PATIENCE, Event::Reply { node, life, reply });
        }
        let back = self
            .chance
            .time(Duration::from_micros(500), Duration::from_millis(5));
        let (reply, after) = match self.health {
            Health::Down => (self.without_store(node, life, request), PATIENCE),
            Health::LosesAnswers if self.chance.happens(0.5) => {
                let _ = self.database.serve(&client, request.clone(), now);
                (request.failed(), PATIENCE)
            }
            Health::Slow(by) if by > PATIENCE => {
                let _ = self.database.serve(&client, request.clone(), now);
                (request.failed(), Duration::ZERO)
            }
            _ => (self.database.serve(&client, request, now), back),
        };
        self.agenda.after(after, Event::Reply { node, life, reply });
    }

    /// What a process answers by itself while the database is away.
    fn without_store(&mut self, node: usize, life: Life, request: StoreRequest) -> StoreReply {
        match (request, self.nodes[node].living(life)) {
            (StoreRequest::EntitiesSince { after }, Some(process)) => {
                let result = Ok(process.shelf.since(after));
                StoreReply::EntitiesSince { after, result }
            }
            (request, _) => request.failed(),
        }
    }

    pub(super) fn store_replied(&mut self, node: usize, life: Life, reply: StoreReply) {
        let now = self.agenda.now();
        if let Some(process) = self.nodes[node].living(life) {
            process.store_busy = false;
            if matches!(reply, StoreReply::FlushCells { result: Ok(()), .. }) {
                self.seen.flushed(node, now);
            }
        }
        self.tell(node, Input::Store(reply));
        self.ask_next(node);
    }
}
