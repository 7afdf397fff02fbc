//! Links, as the rest of the node reports them, and what follows from their end.

use std::time::Duration;

use super::evidence::Evidence;
use super::{LinkSight, Membership, MembershipEffect};
use crate::core::ProbeOutcome;
use crate::data_dir::NodeKey;
use crate::origin::Origin;

/// Links to unknown processes that are remembered.
const EARLY: usize = 256;

impl Membership {
    /// There is a link to this process.
    pub(crate) fn link_up(&mut self, origin: Origin, now: Duration) {
        if !self.begin(now) {
            return;
        }
        let sight = LinkSight {
            since: now,
            last_heard: now,
        };
        match self.members.get_mut(&origin.node) {
            Some(member) if member.origin() == origin => {
                member.link = Some(sight);
                member.last_link_byte = Some(now);
                member.evidence = None;
                self.effects.push(MembershipEffect::Changed(origin));
            }
            _ => {
                if self.early_links.len() < EARLY || self.early_links.contains_key(&origin.node) {
                    self.early_links.insert(origin.node, (origin, sight));
                }
            }
        }
        self.refresh(now);
    }

    /// Something came over the link.
    pub(crate) fn link_heard(&mut self, origin: Origin, now: Duration) {
        if let Some(member) = self.members.get_mut(&origin.node)
            && member.origin() == origin
            && let Some(link) = &mut member.link
        {
            link.last_heard = now;
            member.last_link_byte = Some(now);
        } else if let Some((early, sight)) = self.early_links.get_mut(&origin.node)
            && *early == origin
        {
            sight.last_heard = now;
        }
    }

    /// The link ended. Whether the process ended too is looked into at once.
    pub(crate) fn link_down(&mut self, origin: Origin, now: Duration) {
        if !self.begin(now) {
            return;
        }
        if let Some((early, _)) = self.early_links.get(&origin.node)
            && *early == origin
        {
            self.early_links.remove(&origin.node);
        }
        let Some(member) = self.members.get_mut(&origin.node) else {
            return;
        };
        if member.origin() != origin || member.link.take().is_none() {
            return;
        }
        member.unlinked_since = now;
        if member.is_live() && !member.announced_leave {
            member.evidence = Some(Evidence::new(now));
        }
        self.effects.push(MembershipEffect::Changed(origin));
        self.weigh_evidence(now);
        self.refresh(now);
    }

    /// What came of `MembershipEffect::ProbeLink`, or of a dial.
    pub(crate) fn link_probed(&mut self, node: NodeKey, outcome: ProbeOutcome, now: Duration) {
        if !self.begin(now) {
            return;
        }
        let Some(member) = self.members.get_mut(&node) else {
            return;
        };
        if outcome == ProbeOutcome::Open {
            let evidence = member.evidence.take();
            member.evidence = evidence.and_then(|evidence| evidence.after_open(now));
        } else if let Some(evidence) = &mut member.evidence {
            evidence.probed(outcome, now);
        }
        self.weigh_evidence(now);
        self.refresh(now);
    }

    /// Whether this process is gone as far as this node sees: its link closed and its port refused, or
    /// gossip suspects it, or a later process took its place.
    pub(crate) fn asked_about(&self, about: Origin) -> bool {
        self.members.get(&about.node).is_some_and(|member| {
            let known = member.origin();
            known.boot > about.boot || known == about && member.seems_gone()
        })
    }

    /// What a peer answered to `MembershipEffect::AskOthers`.
    pub(crate) fn confirmed(&mut self, about: Origin, by: NodeKey, gone: bool, now: Duration) {
        if !self.begin(now) || by == about.node {
            return;
        }
        let is_live = |node| self.members.get(&node).is_some_and(|m| m.is_live());
        if !is_live(by) {
            return;
        }
        if let Some(member) = self.members.get_mut(&about.node)
            && member.origin() == about
            && let Some(evidence) = &mut member.evidence
        {
            evidence.vote(by, gone, now);
            self.weigh_evidence(now);
            self.refresh(now);
        }
    }

    /// Takes the next steps about every member whose link closed.
    pub(super) fn weigh_evidence(&mut self, now: Duration) {
        let linked = self
            .members
            .values()
            .filter(|member| member.is_live() && member.link.is_some())
            .count();
        let mut calls = Vec::new();
        let mut gone = Vec::new();
        for member in self.members.values_mut() {
            let (origin, live) = (member.origin(), member.is_live());
            let Some(evidence) = &mut member.evidence else {
                continue;
            };
            if !live {
                continue;
            }
            let steps = evidence.weigh(member.gossip, linked, now);
            if steps.probe {
                self.effects.push(MembershipEffect::ProbeLink {
                    node: origin.node,
                    addr: member.identity.link_addr(),
                });
                calls.push(member.identity.clone());
            }
            if steps.ask {
                self.effects
                    .push(MembershipEffect::AskOthers { about: origin });
            }
            if steps.gone {
                tracing::warn!(member = member.identity.name, %origin, "gone: its link closed");
                gone.push(foca::Member::down(member.identity.clone()));
            }
        }
        // A process that lives answers this at once, and that refutes all evidence.
        for identity in calls {
            self.swim.announce(identity, now);
        }
        if !gone.is_empty() {
            self.swim.apply(gone, now);
        }
    }
}
