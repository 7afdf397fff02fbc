//! A cluster for people.

use std::fmt::Write;

use crate::admin::{ClusterShown, Finding, MemberShown};

const HEADS: [&str; 11] = [
    "NODE", "STATE", "REGION", "VERSION", "ROLE", "RTT", "LAG", "UNACKED", "CLOCK", "FILE",
    "APPLIED",
];

/// The whole view, with a newline at the end.
pub(super) fn of(shown: &ClusterShown) -> String {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(&mut text, shown);
    text
}

fn write(text: &mut String, shown: &ClusterShown) -> std::fmt::Result {
    match (&shown.cluster, shown.caught_up) {
        (None, _) => writeln!(text, "'{}' stands alone: it is in no cluster", shown.node)?,
        (Some(cluster), true) => writeln!(text, "cluster '{cluster}', seen by '{}'", shown.node)?,
        (Some(cluster), false) => writeln!(
            text,
            "cluster '{cluster}', seen by '{}', which is catching up and not ready",
            shown.node
        )?,
    }
    table(text, &shown.members)?;
    if let Some(leader) = &shown.leaders.cluster {
        write!(text, "leader   {leader}")?;
        for (region, leader) in &shown.leaders.regions {
            write!(text, ", of {region} {leader}")?;
        }
        writeln!(text)?;
    }
    for term in &shown.terms {
        let (task, scope, term) = (&term.task, &term.scope, term.term);
        writeln!(text, "leads    {task} of {scope}, term {term}")?;
    }
    if shown.enabled {
        let (sync, flush) = (
            millis(Some(shown.sync_lag_ms)),
            millis(Some(shown.flush_lag_ms)),
        );
        writeln!(text, "lag      {sync} between nodes, {flush} to the store")?;
    }
    for waiting in &shown.waiting {
        let nodes = waiting.nodes.join(", ");
        writeln!(text, "waiting  {} for {nodes}", waiting.feature)?;
    }
    for degraded in &shown.detail {
        let nodes = degraded.nodes.join(", ");
        let (reason, message) = (&degraded.reason, &degraded.message);
        match nodes.is_empty() {
            true => writeln!(text, "wrong    {reason}: {message}")?,
            false => writeln!(text, "wrong    {reason}: {nodes}: {message}")?,
        }
    }
    for limit in &shown.limits {
        let (id, total, of, mode) = (&limit.id, &limit.total, &limit.limit, &limit.mode);
        write!(text, "limit    {id}: {total} of {of}, {mode}")?;
        if let Some(bound) = &limit.overshoot_bound {
            write!(text, ", may be passed by {bound}")?;
        }
        writeln!(text)?;
    }
    Ok(())
}

/// Columns as wide as their widest cell.
fn table(text: &mut String, members: &[MemberShown]) -> std::fmt::Result {
    let mut rows = vec![HEADS.map(str::to_owned)];
    rows.extend(members.iter().map(cells));
    let mut widths = [0; HEADS.len()];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            write!(line, "{cell:<width$}  ")?;
        }
        writeln!(text, "{}", line.trim_end())?;
    }
    Ok(())
}

fn cells(member: &MemberShown) -> [String; HEADS.len()] {
    let or_none = |text: &str| match text.is_empty() {
        true => "-".to_owned(),
        false => text.to_owned(),
    };
    let mut role = Vec::new();
    if member.is_self {
        role.push("self");
    }
    if member.leader {
        role.push("leader");
    } else if member.regional_leader {
        role.push("regional");
    }
    let clock = member.clock_offset_ms;
    let file = member.configuration.as_deref().map(|hash| {
        let newest = if member.configuration_newest {
            " newest"
        } else {
            ""
        };
        format!("{}{newest}", hash.get(..8).unwrap_or(hash))
    });
    [
        member.node.clone(),
        member.state.clone(),
        or_none(&member.region),
        or_none(&member.version),
        or_none(&role.join(",")),
        millis(member.rtt_ms),
        millis(member.lag_ms),
        member.unacked.to_string(),
        clock.map_or("-".to_owned(), |ms| format!("{ms:+}ms")),
        file.unwrap_or("-".to_owned()),
        member
            .applied_revision
            .map_or("-".to_owned(), |revision| revision.to_string()),
    ]
}

fn millis(length: Option<f64>) -> String {
    match length {
        None => "-".to_owned(),
        Some(ms) if ms >= 1_000.0 => format!("{:.1}s", ms / 1_000.0),
        Some(ms) => format!("{ms:.1}ms"),
    }
}

/// One finding on one line.
pub(super) fn of_finding(finding: &Finding) -> String {
    let verdict = if finding.ok { "ok  " } else { "FAIL" };
    let took = match finding.took_ms {
        Some(_) => format!(" ({})", millis(finding.took_ms)),
        None => String::new(),
    };
    let (node, check, detail) = (&finding.node, &finding.check, &finding.detail);
    format!("{verdict} {node} {check}: {detail}{took}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cluster_is_shown_with_what_is_wrong() {
        let member = |node: &str, state: &str, is_self: bool| {
            json!({
                "node": node, "state": state, "self": is_self, "region": "eu", "zone": "",
                "version": "0.1.0", "leader": is_self, "regional_leader": is_self,
                "address": "127.0.0.1:1", "protocol": 2, "linked": !is_self,
                "rtt_ms": 1.25, "lag_ms": null, "unacked": 3, "clock_offset_ms": -4,
                "silent_ms": null, "configuration": "0123456789abcdef",
                "configuration_revision": 7, "configuration_newest": is_self,
                "applied_revision": 12,
            })
        };
        let shown: ClusterShown = serde_json::from_value(json!({
            "enabled": true, "node": "n1", "cluster": "tyr", "caught_up": true,
            "members": [member("n1", "up", true), member("node-2", "degraded", false)],
            "leaders": {"cluster": "n1", "regions": {"eu": "n1"}},
            "terms": [{"task": "seal", "scope": "cluster", "term": 4}],
            "degraded": ["streams_blocked"],
            "detail": [{"reason": "streams_blocked", "nodes": ["node-2"], "message": "no link"}],
            "waiting": [], "protocol": 2, "clock_offset_ms": 0,
            "sync_lag_ms": 80.0, "flush_lag_ms": 1500.0,
            "limits": [{
                "id": "team/a/usd/1d/calendar", "unit": "usd", "limit": "10", "total": "9.5",
                "own": "1", "mode": "live", "rate": 0.5, "overshoot_bound": "0.01",
                "overshoot_observed": "0",
            }],
        }))
        .expect("the shape of the API");
        let expected = "\
cluster 'tyr', seen by 'n1'
NODE    STATE     REGION  VERSION  ROLE         RTT    LAG  UNACKED  CLOCK  FILE             APPLIED
n1      up        eu      0.1.0    self,leader  1.2ms  -    3        -4ms   01234567 newest  12
node-2  degraded  eu      0.1.0    -            1.2ms  -    3        -4ms   01234567         12
leader   n1, of eu n1
leads    seal of cluster, term 4
lag      80.0ms between nodes, 1.5s to the store
wrong    streams_blocked: node-2: no link
limit    team/a/usd/1d/calendar: $9.5 of $10, live, may be passed by $0.01
";
        assert_eq!(of(&shown), expected);
    }
}
