//! What a cluster costs and how well it holds its limits, measured on simulated ones where nothing
//! goes wrong but packet loss, one crash and one split.

mod bytes;
mod convergence;
mod detection;
mod overshoot;

use std::path::Path;
use std::time::Duration;

use policy::WindowKind;

use super::load::{Bearer, LimitSpec, Load};
use super::scenario::Scenario;
use super::weather::Weather;
use super::world::World;

/// How far to measure.
#[derive(Clone, Debug)]
pub(super) struct Extent<'a> {
    pub(super) nodes: &'a [usize],
    pub(super) seeds: &'a [u64],
    /// Divides every length of time but a limit's own.
    pub(super) shorter: u32,
    /// Names of the tables that are wanted; none = all.
    pub(super) only: Vec<String>,
    /// Where the tables go, line by line; they take long.
    pub(super) to: Option<&'a Path>,
}

impl Extent<'_> {
    /// Whether nobody reads the tables, so that little of them is enough.
    fn is_trial(&self) -> bool {
        self.to.is_none()
    }
}

/// Tables on their way.
struct Tables<'a> {
    text: String,
    to: Option<&'a Path>,
}

type Table = fn(&Extent<'_>, &mut Tables<'_>);

/// Each table by its name.
const TABLES: [(&str, Table); 7] = [
    ("overshoot", overshoot::pressed),
    ("split", overshoot::split),
    ("convergence", convergence::convergence),
    ("bytes", bytes::one_limit),
    ("many", bytes::many_limits),
    ("detection", detection::crashes),
    ("false", detection::false_downs),
];

/// By this time a cluster has formed, and serves.
const FORMED: Duration = Duration::from_secs(10);

/// Requests a minute of the limit that is measured.
const LIMIT: u64 = 6_000;

/// The tables, as Markdown.
pub(super) fn tables(extent: &Extent<'_>) -> String {
    let mut tables = Tables {
        text: String::new(),
        to: extent.to,
    };
    let wanted = |name: &str| extent.only.is_empty() || extent.only.iter().any(|one| one == name);
    for (name, table) in TABLES {
        if wanted(name) {
            table(extent, &mut tables);
        }
    }
    tables.text
}

/// Begins a table.
fn head(tables: &mut Tables<'_>, title: &str, columns: &[&str]) {
    line(tables, format_args!("\n## {title}\n"));
    line(tables, format_args!("| {} |", columns.join(" | ")));
    line(tables, format_args!("|{}", "---|".repeat(columns.len())));
}

fn line(tables: &mut Tables<'_>, cells: std::fmt::Arguments<'_>) {
    tables.text.push_str(&format!("{cells}\n"));
    if let Some(path) = tables.to {
        std::fs::write(path, &tables.text).expect("a file to write to");
    }
}

fn calm(seed: u64, nodes: usize, load: Load, loss: f64) -> World {
    let mut scenario = Scenario::calm(seed, nodes, load, Duration::from_secs(3_600));
    scenario.weather = Weather {
        loss,
        ..Weather::LOCAL
    };
    World::new(scenario)
}

fn requests(rate: f64, keys: usize, limits: Vec<LimitSpec>) -> Load {
    Load {
        rate,
        keys,
        evenly: true,
        limits,
        open_for: Duration::from_millis(500),
        failing: 0.0,
        skewed: false,
    }
}

fn per_minute(key: usize, amount: u64) -> LimitSpec {
    LimitSpec::requests(Bearer::Key(key), "1m", amount as f64)
}

impl LimitSpec {
    fn hourly(of: Bearer, amount: u64) -> Self {
        Self {
            every: "1h",
            window: WindowKind::Fixed,
            ..Self::requests(of, "1h", amount as f64)
        }
    }
}
