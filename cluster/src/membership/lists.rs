//! Exchanges over TCP: whole member lists, and packets that UDP does not carry.
//!
//! Promise: after an exchange of lists both sides know whom either knew. A list never kills: that
//! somebody is dead is believed of unknown members and of this node itself (which then takes a new
//! identity); a live member is judged by gossip and its link alone.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use foca::State;

use super::notice::{Intent, Notice};
use super::wire::{Exchange, Lists};
use super::{Identity, Membership, MembershipError};
use crate::core::ExchangeFailure;

/// Dead members in a list at most.
const DEAD: usize = 256;

impl Membership {
    /// Answers an exchange that somebody asked for.
    ///
    /// # Errors
    ///
    /// When it cannot be understood, is of a stranger or of this node itself, or this node has left.
    pub(crate) fn exchange_asked(
        &mut self,
        bytes: &[u8],
        now: Duration,
    ) -> Result<Vec<u8>, MembershipError> {
        if !self.begin(now) {
            return Err(MembershipError::Left);
        }
        let answer = match self.read(bytes)? {
            Exchange::Lists(lists) => {
                self.merge(lists, now);
                Exchange::Lists(self.lists())
            }
            Exchange::Wrapped { from, packets } => {
                self.swim.capture(from);
                for packet in packets {
                    self.packet(&packet, true, now);
                }
                Exchange::Wrapped {
                    from: self.me().addr,
                    packets: self.swim.captured(),
                }
            }
        };
        self.swim.stats_mut().exchanges_answered += 1;
        self.refresh(now);
        Ok(answer.encode())
    }

    /// What came of an exchange that this node asked for.
    pub(crate) fn exchange_answered(
        &mut self,
        to: SocketAddr,
        answer: Result<&[u8], ExchangeFailure>,
        now: Duration,
    ) {
        if !self.begin(now) {
            return;
        }
        let failed = answer.as_ref().err();
        let by_peer = failed.is_some_and(|why| *why != ExchangeFailure::NoRoom);
        self.swim.exchange_ended(to, by_peer);
        match answer.map(|bytes| self.read(bytes)) {
            Ok(Ok(Exchange::Lists(lists))) => {
                self.join.answered(to, lists.from.node);
                self.merge(lists, now);
            }
            Ok(Ok(Exchange::Wrapped { packets, .. })) => {
                for packet in packets {
                    self.packet(&packet, true, now);
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(%to, %error, "exchange of members");
                self.join.failed(to, ExchangeFailure::Broken);
            }
            Err(failure) => {
                self.swim.stats_mut().exchanges_failed += 1;
                self.join.failed(to, failure);
            }
        }
        self.refresh(now);
    }

    /// Asks `to` for its list, and gives it this node's.
    pub(super) fn ask(&mut self, to: SocketAddr, now: Duration) {
        let lists = Exchange::Lists(self.lists());
        self.swim.exchange(to, lists, now);
    }

    fn read(&mut self, bytes: &[u8]) -> Result<Exchange, MembershipError> {
        let me = self.me().node;
        let read = Exchange::decode(bytes).and_then(|exchange| match &exchange {
            Exchange::Lists(lists) if lists.cluster != self.cluster => {
                Err(MembershipError::OtherCluster)
            }
            Exchange::Lists(lists) if lists.from.node == me => {
                let now = self.now;
                self.twins.heard(self.swim.me(), &lists.from, now);
                Err(MembershipError::Ourselves)
            }
            _ => Ok(exchange),
        });
        if read.is_err() {
            self.swim.stats_mut().malformed += 1;
        }
        read
    }

    /// All that this node knows.
    fn lists(&self) -> Lists {
        let (live, dead): (Vec<_>, Vec<_>) = self
            .swim
            .states()
            .cloned()
            .partition(|member| member.state() != State::Down);
        let members = live.into_iter().chain(dead.into_iter().take(DEAD));
        let mut notices = Vec::new();
        if self.draining {
            notices.push(Notice::new(self.me().origin(), Intent::Drain));
        }
        for member in self.members.values() {
            let flags = [
                (member.announced_drain, Intent::Drain),
                (member.announced_leave, Intent::Leave),
            ];
            let said = flags.into_iter().filter(|(said, _)| *said);
            notices.extend(said.map(|(_, intent)| Notice::new(member.origin(), intent)));
        }
        Lists {
            cluster: self.cluster.clone(),
            from: self.me().clone(),
            members: members.collect(),
            notices,
        }
    }

    fn merge(&mut self, lists: Lists, now: Duration) {
        let me = self.me().clone();
        let lists_us = lists
            .members
            .iter()
            .any(|member| *member.id() == me && member.state() != State::Down);
        let live: BTreeSet<SocketAddr> = self
            .swim
            .states()
            .filter(|member| member.state() != State::Down)
            .map(|member| member.id().addr)
            .collect();
        for member in &lists.members {
            // Gossip does not bring these to whom the others hold for dead.
            let alive = member.state() != State::Down;
            self.twins.told(&me, member.id(), alive, now);
        }
        let mut news = vec![foca::Member::alive(lists.from.clone())];
        news.extend(
            lists
                .members
                .into_iter()
                .filter(|member| is_news(member, &me, &live)),
        );
        self.swim.apply(news, now);
        for notice in lists.notices {
            self.note(notice, now);
        }
        self.refresh_members(now);
        self.heard(&lists.from, lists_us, now);
    }
}

/// Whether what a list says about a member is taken in.
fn is_news(member: &foca::Member<Identity>, me: &Identity, live: &BTreeSet<SocketAddr>) -> bool {
    let id = member.id();
    if id == me {
        return true;
    }
    if id.node == me.node || id.addr == me.addr {
        // An earlier identity of this node is over; nobody else's is judged here.
        return id.node == me.node && id.addr == me.addr && (id.boot, id.bump) < (me.boot, me.bump);
    }
    member.state() != State::Down || !live.contains(&id.addr)
}
