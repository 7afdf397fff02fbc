//! What was used, as the provider, every node and Postgres say: the provider is the oracle.

use std::time::{Duration, Instant};

use super::fleet::{Fleet, TEAM};
use super::node::Node;
use super::wait::within;

/// Price of the model in nano-dollars a token.
const INPUT_NANOS: u64 = 150;
const OUTPUT_NANOS: u64 = 600;

/// What all keys together used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub requests: u64,
    pub tokens: u64,
    pub nano_usd: u64,
}

/// How long it took until all said the same.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    pub on: Counted,
    /// Until every node did, and nothing was held any more.
    pub nodes: Duration,
    /// Until Postgres did, too: its records, and its counts.
    pub store: Duration,
}

impl Counted {
    fn of(requests: u64, input: u64, output: u64) -> Self {
        Self {
            requests,
            tokens: input + output,
            nano_usd: input * INPUT_NANOS + output * OUTPUT_NANOS,
        }
    }

    /// What this node has counted; `None` while something is held.
    pub fn by(node: &Node) -> Option<Self> {
        let (settled, held) = Self::seen_by(node);
        (held == Self::default()).then_some(settled)
    }

    /// What this node sees as settled, and as held by requests in flight.
    #[track_caller]
    pub fn seen_by(node: &Node) -> (Self, Self) {
        let standing = node.standing("demo");
        let amount = |unit: &str, field: &str| {
            let mut ours = standing.iter();
            let found = ours.find(|one| one["scope"] == "team" && one["unit"] == unit);
            let amount = found.and_then(|one| one[field].as_u64());
            amount.unwrap_or_else(|| panic!("no {field} of {unit} in {standing:?}"))
        };
        let all = |field: &str| Self {
            requests: amount("requests", field),
            tokens: amount("tokens", field),
            nano_usd: amount("usd", &format!("{field}_nano_usd")),
        };
        (all("used"), all("reserved"))
    }
}

impl Fleet {
    /// What the provider has served; `None` while it is at work.
    pub fn provided(&self) -> Option<Counted> {
        let stats = self.mock.stats();
        let served = |name: &str| stats["served"][name].as_u64();
        (stats["in_flight"] == 0).then_some(())?;
        let requests = stats["requests"].as_u64()?;
        Some(Counted::of(
            requests,
            served("input_tokens")?,
            served("output_tokens")?,
        ))
    }

    /// What all nodes count, if it is the same.
    pub fn counted(&self) -> Option<Counted> {
        let first = Counted::by(self.nodes.first()?)?;
        let mut others = self.nodes.iter();
        others
            .all(|node| Counted::by(node) == Some(first))
            .then_some(first)
    }

    /// What the usage records in Postgres add up to.
    pub fn recorded(&self) -> Counted {
        let sums = self.database.usage();
        Counted {
            requests: sums.records,
            tokens: sums.input + sums.output,
            nano_usd: sums.nano_usd,
        }
    }

    /// What the counters in Postgres add up to.
    pub fn stored(&self) -> Counted {
        let cells = self.database.cells();
        let of = |unit: &str| {
            let start = format!("team/{TEAM}/{unit}/");
            let ours = cells.iter().filter(|(id, _)| id.starts_with(&start));
            ours.map(|(_, amount)| amount).sum()
        };
        Counted {
            requests: of("requests"),
            tokens: of("tokens"),
            nano_usd: of("usd"),
        }
    }

    /// Waits until every node and Postgres say what the provider served, to the token.
    #[track_caller]
    pub fn agree(&self, at_most: Duration) -> Agreed {
        let begun = Instant::now();
        let nodes = within(at_most, || {
            let on = self.provided()?;
            (self.counted() == Some(on)).then(|| begun.elapsed())
        });
        let agreed = nodes.and_then(|nodes| {
            within(at_most, || {
                let on = self.provided()?;
                let all =
                    self.counted() == Some(on) && self.recorded() == on && self.stored() == on;
                let store = begun.elapsed();
                all.then_some(Agreed { on, nodes, store })
            })
        });
        agreed.unwrap_or_else(|| {
            let nodes: Vec<_> = self.nodes.iter().map(Counted::by).collect();
            panic!(
                "not the same after {at_most:?}: provider {:?}, nodes {nodes:?}, records {:?}, counters {:?}",
                self.provided(),
                self.recorded(),
                self.stored()
            )
        })
    }
}
