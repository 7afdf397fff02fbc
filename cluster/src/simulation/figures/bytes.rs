//! What nodes send each second: gossip, and frames of links as they are encoded.

use std::time::Duration;

use super::super::load::{Bearer, LimitSpec, Load};
use super::super::traffic::{PING, Sent};
use super::{Extent, FORMED, LIMIT, Tables, calm, head, line, per_minute, requests};

pub(super) fn one_limit(extent: &Extent<'_>, text: &mut Tables<'_>) {
    head(
        text,
        "Bytes sent by a node each second: gossip, and links with one busy limit",
        &[
            "nodes",
            "loss",
            "datagrams",
            "gossip bytes",
            "exchange bytes",
            "frames, no requests",
            "link bytes, no requests",
            "frames, 200 requests a second",
            "link bytes, 200 requests a second",
        ],
    );
    for nodes in extent.nodes {
        for loss in [0.0, 0.05, 0.2] {
            let lasts = Duration::from_secs(60) / extent.shorter;
            let idle = sent(
                extent.seeds[0],
                *nodes,
                requests(0.01, 1, vec![per_minute(0, LIMIT)]),
                loss,
                lasts,
            );
            let busy = sent(
                extent.seeds[0],
                *nodes,
                Load {
                    open_for: Duration::from_millis(5),
                    ..requests(200.0, 1, vec![per_minute(0, 1_000_000)])
                },
                loss,
                lasts,
            );
            let each = |total: u64| total as f64 / *nodes as f64 / lasts.as_secs_f64();
            line(
                text,
                format_args!(
                    "| {nodes} | {:.0} % | {:.1} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                    loss * 100.0,
                    each(idle.datagrams),
                    each(idle.gossip_bytes),
                    each(idle.exchange_bytes),
                    each(idle.frames),
                    each(idle.frame_bytes),
                    each(busy.frames),
                    each(busy.frame_bytes),
                ),
            );
        }
    }
}

/// What all nodes together send in this time, once the cluster has formed.
fn sent(seed: u64, nodes: usize, load: Load, loss: f64, lasts: Duration) -> Sent {
    let mut world = calm(seed, nodes, load, loss);
    world.traffic.encode_frames();
    world.run_until(FORMED * 2);
    let before = world.traffic.total();
    world.run_until(FORMED * 2 + lasts);
    assert_eq!(world.violation, None, "seed {seed}, {nodes} nodes");
    let mut sent = world.traffic.total().less(&before);
    let ends = (nodes * (nodes - 1)) as u64;
    sent.frame_bytes += ends * PING as u64 * lasts.as_secs();
    sent
}

pub(super) fn many_limits(extent: &Extent<'_>, text: &mut Tables<'_>) {
    head(
        text,
        "Bytes sent on links by a node each second: many busy limits, two requests a second each",
        &[
            "nodes",
            "limits",
            "how full",
            "link bytes",
            "frames",
            "cells",
            "bytes a cell",
        ],
    );
    for nodes in extent.nodes {
        let keys = if extent.is_trial() { 50 } else { 1_000 };
        let far = |key| per_minute(key, 1_000_000);
        let near = |key| LimitSpec::requests(Bearer::Key(key), "10s", 10.0);
        let cases: [(&str, Vec<LimitSpec>); 2] = [
            ("far from their end", (0..keys).map(far).collect()),
            (
                "at their end: twice what they allow is asked",
                (0..keys).map(near).collect(),
            ),
        ];
        for (name, limits) in cases {
            let lasts = Duration::from_secs(40) / extent.shorter;
            let sent = sent(
                extent.seeds[0],
                *nodes,
                requests(2.0 * keys as f64, keys, limits),
                0.0,
                lasts,
            );
            let each = |total: u64| total as f64 / *nodes as f64 / lasts.as_secs_f64();
            line(
                text,
                format_args!(
                    "| {nodes} | {keys} | {name} | {:.0} | {:.0} | {:.0} | {:.1} |",
                    each(sent.frame_bytes),
                    each(sent.frames),
                    each(sent.cells),
                    sent.frame_bytes as f64 / sent.cells.max(1) as f64,
                ),
            );
        }
    }
}
