//! `cluster_config`: the same field names, switched off until it is checked.

use super::Import;
use crate::import::source::Node;
use crate::import::yaml::{Block, Out, plain, text};

impl<'a> Import<'a> {
    pub(super) fn cluster(&mut self, node: &'a Node) {
        let mut block = Block::default();
        block.put("enabled", plain(false));
        if node.flag("enabled") == Some(true)
            && let Some(enabled) = node.field("enabled")
        {
            let why = "this version of Tyr runs no cluster: every node counts for itself";
            self.notes.at(&enabled.at, why);
            block.beside("in the source: true");
        }
        if let Some(field) = node.field("type")
            && field.as_text() != Some("mesh")
        {
            self.notes.add(
                field,
                "this version of Tyr has no other kind of cluster than `mesh`",
            );
        }
        for name in ["node_id", "region"] {
            block.put_some(name, node.text(name).map(text));
        }
        let mut peers = Vec::new();
        for peer in node.items("peers") {
            peers.extend(self.address(peer, &["cluster", "peer"]).map(text));
        }
        if !peers.is_empty() {
            block.put("peers", Out::Line(peers));
        }
        if let Some(gossip) = node.field("gossip") {
            let mut ours = Block::default();
            ours.put_some("port", gossip.whole("port").map(plain));
            let timing = gossip.field("config").map(|config| {
                let fields = ["timeout_seconds", "failure_threshold"];
                let value = |name| Some((name, plain(config.whole(name)?)));
                fields.into_iter().filter_map(value).collect::<Vec<_>>()
            });
            let timing = timing.filter(|pairs| !pairs.is_empty());
            ours.put_some("config", timing.map(Out::Pairs));
            block.put("gossip", Out::Block(ours));
        }
        if let Some(grpc) = node.field("grpc") {
            let fields = ["port", "dial_timeout_seconds"];
            let value = |name| Some((name, plain(grpc.whole(name)?)));
            let pairs: Vec<_> = fields.into_iter().filter_map(value).collect();
            block.put("grpc", Out::Pairs(pairs));
        }
        if let Some(discovery) = node.field("discovery") {
            let why = "this version of Tyr finds no nodes by a service: list `peers`";
            self.notes.add(discovery, why);
        }
        self.plan.cluster = Some(block);
    }
}
