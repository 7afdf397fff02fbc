//! Brings the member list in line with gossip, and tells what changed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use foca::State;
use tracing::{info, warn};

use super::notice::{Intent, Notice};
use super::{Identity, LOOK, Member, Membership, MembershipEffect};
use crate::core::MemberState;
use crate::data_dir::NodeKey;

/// Members that are down or left, and notices of unknown processes, that are kept.
const KEPT: usize = 256;
/// How long who left is shown.
const SHOW_LEFT: Duration = Duration::from_secs(600);

impl Membership {
    /// Closes a call: whatever follows from it has happened afterwards.
    pub(super) fn refresh(&mut self, now: Duration) {
        self.next_look = now + LOOK;
        for notice in self.swim.take_notices() {
            self.note(notice, now);
        }
        self.refresh_members(now);
        if self.swim.take_rejoined() {
            self.swim.stats_mut().rejoins += 1;
            for member in self.members.values_mut() {
                member.listed_us_back = false;
            }
            if self.draining {
                self.swim
                    .tell(Notice::new(self.swim.me().origin(), Intent::Drain));
            }
            self.join.hurry(now);
        }
        self.judge(now);
        self.prune(now);
        self.look_for_namesake();
        if let Some(twin) = self.twins.judge(now) {
            self.effects.push(MembershipEffect::KeyTaken(twin));
        }
        self.effects.extend(self.swim.take_effects(now));
    }

    /// Takes over who there is from gossip.
    pub(super) fn refresh_members(&mut self, now: Duration) {
        let stale = self.reconcile(now);
        if !stale.is_empty() {
            let down = stale.into_iter().map(foca::Member::down).collect();
            self.swim.apply(down, now);
        }
    }

    /// Answers with identities that gossip holds for alive although a later one of their node lives, or
    /// they said that they leave.
    fn reconcile(&mut self, now: Duration) -> Vec<Identity> {
        let me = self.swim.me();
        let mut stale = Vec::new();
        let mut best: BTreeMap<NodeKey, &foca::Member<Identity>> = BTreeMap::new();
        for state in self.swim.states() {
            let id = state.id();
            if id.node == me.node {
                let alive = state.state() != State::Down;
                self.twins.told(me, id, alive, now);
                if alive && id.boot < me.boot {
                    stale.push(id.clone());
                }
                continue;
            }
            match best.entry(id.node) {
                Entry::Vacant(entry) => {
                    entry.insert(state);
                }
                Entry::Occupied(mut entry) => {
                    let loser = if precedence(state) > precedence(entry.get()) {
                        entry.insert(state)
                    } else {
                        state
                    };
                    if loser.state() != State::Down {
                        stale.push(loser.id().clone());
                    }
                }
            }
        }
        for (node, member) in &mut self.members {
            if !best.contains_key(node) {
                lose(member, now);
            }
        }
        let mut newcomers = Vec::new();
        for (node, state) in best {
            match self.members.get_mut(&node) {
                Some(member) if member.origin() == state.id().origin() => {
                    update(member, state, &mut self.effects, now);
                }
                Some(member) if state.state() == State::Down => lose(member, now),
                // Who was dead before this node heard of it is not worth showing.
                None if state.state() == State::Down => {}
                _ => newcomers.push((state.id().clone(), state.state())),
            }
        }
        for (identity, gossip) in newcomers {
            if self.meet(identity.clone(), gossip, now).announced_leave {
                stale.push(identity);
            }
        }
        stale
    }

    /// Takes in a process that was unknown, in place of its node's earlier one.
    fn meet(&mut self, identity: Identity, gossip: State, now: Duration) -> &Member {
        let (node, origin) = (identity.node, identity.origin());
        if let Some(before) = self.members.get(&node)
            && before.is_live()
        {
            self.effects.push(MembershipEffect::Down {
                origin: before.origin(),
                left: before.announced_leave,
            });
        }
        let mut member = Member::new(identity, gossip, now);
        if let Some((early, sight)) = self.early_links.remove(&node) {
            if early == origin {
                member.link = Some(sight);
                member.last_link_byte = Some(sight.last_heard);
            } else if early.boot > origin.boot {
                self.early_links.insert(node, (early, sight));
            }
        }
        let said = |intent| self.early_notices.contains(&Notice::new(origin, intent));
        member.announced_drain = said(Intent::Drain);
        member.announced_leave = said(Intent::Leave);
        info!(member = member.identity.name, %origin, "member is up");
        self.effects.push(MembershipEffect::Up(origin));
        self.members.insert(node, member);
        &self.members[&node]
    }

    /// A member said something about its end.
    pub(super) fn note(&mut self, notice: Notice, now: Duration) {
        let origin = notice.origin();
        if origin.node == self.me().node {
            return;
        }
        let member = self.members.get_mut(&origin.node);
        let Some(member) = member.filter(|member| member.origin() == origin) else {
            self.early_notices.insert(notice);
            while self.early_notices.len() > KEPT {
                self.early_notices.pop_first();
            }
            return;
        };
        let said = match notice.intent {
            Intent::Drain => &mut member.announced_drain,
            Intent::Leave => &mut member.announced_leave,
        };
        if std::mem::replace(said, true) {
            return;
        }
        self.effects.push(MembershipEffect::Changed(origin));
        if notice.intent == Intent::Leave && member.gossip != State::Down {
            let left = foca::Member::down(member.identity.clone());
            self.swim.apply(vec![left], now);
        }
    }

    fn judge(&mut self, now: Duration) {
        for member in self.members.values_mut() {
            let state = member.judge(self.suspicion, now);
            if state == member.state {
                continue;
            }
            let (origin, was_live) = (member.origin(), member.is_live());
            let name = member.identity.name.as_str();
            match state {
                MemberState::Down => warn!(member = name, %origin, "member is down"),
                MemberState::Left => info!(member = name, %origin, "member left"),
                MemberState::Degraded => warn!(member = name, %origin, "no link to this member"),
                MemberState::Up | MemberState::Suspect => {
                    info!(member = name, %origin, was = ?member.state, "member is {state:?}");
                }
            }
            member.state = state;
            member.since = now;
            self.effects.push(match (was_live, member.is_live()) {
                (true, false) => MembershipEffect::Down {
                    origin,
                    left: member.announced_leave,
                },
                (false, true) => MembershipEffect::Up(origin),
                _ => MembershipEffect::Changed(origin),
            });
            if !member.is_live() {
                member.evidence = None;
                member.listed_us_back = false;
            }
        }
    }

    /// Keeps what is remembered of the dead within bounds.
    fn prune(&mut self, now: Duration) {
        self.members.retain(|_, member| {
            member.state != MemberState::Left || now < member.since + SHOW_LEFT
        });
        let gone = |members: &BTreeMap<NodeKey, Member>| {
            members.values().filter(|member| !member.is_live()).count()
        };
        for _ in KEPT..gone(&self.members) {
            let oldest = self.members.values().filter(|member| !member.is_live());
            let oldest = oldest.min_by_key(|member| member.since);
            let Some(node) = oldest.map(|member| member.identity.node) else {
                break;
            };
            self.members.remove(&node);
            self.swim.stats_mut().forgotten += 1;
        }
        let mut dead: Vec<&Identity> = self
            .swim
            .states()
            .filter(|state| state.state() == State::Down)
            .map(foca::Member::id)
            .collect();
        if dead.len() > KEPT {
            dead.sort_by_key(|id| (id.boot, id.node));
            let oldest: Vec<Identity> = dead[..dead.len() - KEPT]
                .iter()
                .map(|id| (*id).clone())
                .collect();
            for identity in oldest {
                self.swim.forget(identity, now);
            }
        }
    }

    /// Of two live nodes with one name the one that came later is told.
    fn look_for_namesake(&mut self) {
        let me = self.swim.me();
        let mine = (me.boot, me.node);
        let namesake = self
            .members
            .values()
            .filter(|member| member.is_live() && member.identity.name == me.name)
            .map(Member::origin)
            .find(|origin| (origin.boot, origin.node) < mine);
        if namesake == self.name_taken_by {
            return;
        }
        self.name_taken_by = namesake;
        if let Some(by) = namesake {
            let name = me.name.clone();
            warn!(name, %by, "another node has this node's name");
            self.effects.push(MembershipEffect::NameTaken { by, name });
        }
    }
}

/// Gossip knows nothing of this process any more.
fn lose(member: &mut Member, now: Duration) {
    if member.gossip != State::Down {
        member.gossip = State::Down;
        member.gossip_since = now;
    }
}

/// Of two identities of one node the one with more of this counts.
fn precedence(member: &foca::Member<Identity>) -> (bool, u64, u64) {
    let id = member.id();
    (member.state() != State::Down, id.boot, id.bump)
}

/// Takes over what gossip says about a known process.
fn update(
    member: &mut Member,
    state: &foca::Member<Identity>,
    effects: &mut Vec<MembershipEffect>,
    now: Duration,
) {
    if member.identity != *state.id() && state.state() != State::Down {
        member.identity = state.id().clone();
        effects.push(MembershipEffect::Changed(member.origin()));
    }
    if member.gossip != state.state() {
        let was_dead = member.gossip == State::Down;
        member.gossip = state.state();
        member.gossip_since = now;
        if was_dead {
            // It came back, so what spoke against it is refuted. Leaving is for good.
            member.evidence = None;
            member.unlinked_since = now;
        }
    }
}
