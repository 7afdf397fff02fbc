//! The requests that nodes serve, judged by the real limits and booked by the onlooker.

use policy::{Actual, Candidate, Demand, ModelId, NanoUsd, Tokens, Verdict, admit};

use super::super::load::{Request, TOKEN_COST};
use super::super::node::Open;
use super::{Event, World};
use std::time::Duration;

impl World {
    /// A request comes, and the time of the one after it is drawn.
    pub(super) fn next_request(&mut self) {
        if self.now() >= self.scenario.idle_at {
            return;
        }
        let request = self.scenario.load.request(&mut self.chance);
        let node = self.scenario.load.node(self.nodes.len(), &mut self.chance);
        let mean = Duration::from_secs_f64(1.0 / self.scenario.load.rate);
        let gap = self.chance.exponential(mean);
        self.agenda.after(gap, Event::NextRequest);
        self.happen(Event::Arrival { node, request });
    }

    pub(in super::super) fn arrive(&mut self, node: usize, request: Request) {
        let now = self.now();
        for (account, spec) in self.scenario.load.limits.iter().enumerate() {
            if spec.concerns(request.key) {
                self.ledger
                    .offer(account, spec.asked(request.predicted), now);
            }
        }
        let wall = self.nodes[node].time(now).wall;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        if process.ready_at.is_none() || process.draining {
            return;
        }
        let candidate = Candidate {
            model: ModelId(0),
            demand: demand(&request),
        };
        let gateway = &process.gateway;
        let key = &gateway.keys[request.key];
        let verdict = admit(&gateway.snapshot, key, None, &[candidate], wall);
        let Verdict::Admit(admitted) = verdict else {
            self.seen.refused += 1;
            return;
        };
        self.seen.admitted += 1;
        let held = self.book(node, &request, wall);
        self.request += 1;
        let number = self.request;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let (life, open_for) = (process.life, request.open_for);
        let reservation = admitted.reservation;
        process.open.insert(
            number,
            Open {
                reservation,
                held,
                request,
            },
        );
        self.agenda
            .after(open_for, Event::Finish { node, life, number });
    }

    /// Writes down what was admitted, and compares it with the limits.
    fn book(
        &mut self,
        node: usize,
        request: &Request,
        wall: policy::Timestamp,
    ) -> Vec<super::super::ledger::Held> {
        let mut held = Vec::new();
        for account in 0..self.scenario.load.limits.len() {
            let spec = &self.scenario.load.limits[account];
            if !spec.concerns(request.key) {
                continue;
            }
            let asked = spec.held(request);
            let strict = spec.is_strict();
            held.push(self.ledger.hold(node, account, asked, wall));
            if strict {
                self.check_strict(node, account);
                continue;
            }
            let books = &self.ledger.accounts[account];
            let over = books.total(wall).saturating_sub(books.limit);
            if over > 0 {
                self.passed(node, account, over);
            }
        }
        held
    }

    pub(super) fn finish(&mut self, node: usize, number: u64) {
        let now = self.now();
        let wall = self.nodes[node].time(now).wall;
        let Some(process) = self.nodes[node].process.as_mut() else {
            return;
        };
        let Some(open) = process.open.remove(&number) else {
            return;
        };
        let origin = process.origin;
        let (key, used) = (open.request.key, open.request.used);
        let beyond = used.saturating_sub(open.request.predicted);
        let actual = Actual {
            requests: u64::from(used > 0),
            tokens: Tokens(used),
            cost: NanoUsd(used * TOKEN_COST),
        };
        let charges = open.reservation.settle(&actual, wall);
        for held in open.held {
            self.ledger.end(held);
        }
        for charge in &charges {
            let account = self.ledger.settle(node, origin, charge);
            let process = self.nodes[node].process.as_mut();
            if let (Some(process), Some(account)) = (process, account) {
                process.recent.push_back((now, account, charge.amount));
            }
        }
        // What nobody could foresee counts as asked for when it is known.
        for (account, spec) in self.scenario.load.limits.iter().enumerate() {
            if beyond > 0 && spec.concerns(key) && spec.asked(2) > spec.asked(1) {
                self.ledger.offer(account, spec.asked(beyond), now);
            }
        }
        self.seen.changed_at = now;
    }
}

fn demand(request: &Request) -> Demand {
    Demand {
        tokens: Tokens(request.predicted),
        cost: NanoUsd(request.predicted * TOKEN_COST),
        strict_tokens: Tokens(request.most),
        strict_cost: NanoUsd(request.most * TOKEN_COST),
        ..Demand::default()
    }
}
