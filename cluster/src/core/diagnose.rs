//! Checks of the way to every member, one finding each.

use super::effect::Diagnosis;
use super::{Core, Effect, MemberState, Now};
use crate::membership::Member;

impl Core {
    pub(super) fn diagnose(&mut self, id: u64, now: Now) {
        if !self.round_trips.has_room() {
            let detail = "too many of them run".to_owned();
            let diagnosis = self.finding_of_me("diagnosis", false, detail);
            self.effects.push(Effect::Diagnosed { id, diagnosis });
            self.effects.push(Effect::DiagnosisEnded { id });
            return;
        }
        let mut findings = vec![
            self.finding_of_me("store", self.flush.ok, self.store_detail(now)),
            self.finding_of_me(
                "clock",
                self.clock.offset_ms().unsigned_abs() <= 100,
                format!("{} ms are added to the wall clock", self.clock.offset_ms()),
            ),
        ];
        let members = self.membership.members();
        let members = members.filter(|member| member.state != MemberState::Left);
        let mut asked = Vec::new();
        for member in members {
            self.diagnose_member(member, now, &mut findings);
            asked.push((
                member.identity.node,
                member.identity.name.clone(),
                member.identity.addr,
            ));
        }
        for diagnosis in findings {
            self.effects.push(Effect::Diagnosed { id, diagnosis });
        }
        self.begin_round_trips(id, asked, now);
    }

    /// What is known of it already.
    fn diagnose_member(&self, member: &Member, now: Now, findings: &mut Vec<Diagnosis>) {
        let node = &member.identity.name;
        let mut find = |check, ok, detail, took| {
            findings.push(Diagnosis {
                node: node.clone(),
                check,
                ok,
                detail,
                took,
            });
        };
        let live = member.is_live() && member.state != MemberState::Suspect;
        let since = now.mono.saturating_sub(member.since).as_secs();
        let state = format!(
            "{:?} for {since} s at {}",
            member.state, member.identity.addr
        );
        find("gossip", live, state.to_lowercase(), None);
        let Some(peer) = self.peers.get(&member.identity.node) else {
            return;
        };
        let Some(link) = &peer.link else {
            return;
        };
        if let Some(best) = link.samples.best() {
            let ms = best.offset_ms.saturating_sub(self.clock.offset_ms());
            let off = format!("{ms} ms from cluster time");
            find("clock", ms.unsigned_abs() <= 100, off, None);
        }
        let unacked = link.sync.unacked(self.counting.store.seen(self.config.me));
        let lag = link.sync.lag(now.mono);
        let in_time = lag.is_none_or(|lag| lag.as_secs() < 1);
        find("cells", in_time, format!("{unacked} not acknowledged"), lag);
        find("protocol", true, format!("version {}", link.protocol), None);
        match self.mismatch(peer.mark.as_ref()) {
            Some(parts) => {
                find(
                    "configuration",
                    false,
                    format!("differs in {}", parts.join(", ")),
                    None,
                );
            }
            None => find("configuration", true, "the same".to_owned(), None),
        }
        let behind = peer.applied < self.news.applied;
        let applied = peer
            .applied
            .map_or_else(|| "none".to_owned(), |revision| revision.to_string());
        find("entities", !behind, format!("revision {applied}"), None);
    }

    pub(super) fn finding_of_me(&self, check: &'static str, ok: bool, detail: String) -> Diagnosis {
        Diagnosis {
            node: self.config.name.clone(),
            check,
            ok,
            detail,
            took: None,
        }
    }

    fn store_detail(&self, now: Now) -> String {
        let waiting = self.flush.unflushed();
        match self.heartbeats.renewed {
            None => format!("never answered; {waiting} cells wait"),
            Some(at) => {
                let ago = now.mono.saturating_sub(at).as_secs();
                format!("answered {ago} s ago; {waiting} cells wait")
            }
        }
    }
}
