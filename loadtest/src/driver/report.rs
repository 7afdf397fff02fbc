//! What a run found: counts, latencies, broken promises.

use std::io::Write;
use std::time::Duration;

const EXAMPLES: usize = 5;

/// Grows during a run, printed at its end.
#[derive(Debug)]
pub(crate) struct Report {
    scenario: &'static str,
    requests: u64,
    admitted: u64,
    refused: u64,
    broken: u64,
    examples: Vec<String>,
    /// Microseconds.
    total: Vec<u32>,
    first_byte: Vec<u32>,
}

impl Report {
    pub(crate) fn new(scenario: &'static str) -> Self {
        Self {
            scenario,
            requests: 0,
            admitted: 0,
            refused: 0,
            broken: 0,
            examples: Vec::new(),
            total: Vec::new(),
            first_byte: Vec::new(),
        }
    }

    /// Adds one request; `Err` tells which promise it broke.
    pub(crate) fn add(&mut self, outcome: Result<Outcome, String>) {
        self.requests += 1;
        match outcome {
            Ok(Outcome::Admitted { total, first_byte }) => {
                self.admitted += 1;
                self.total.push(micros(total));
                self.first_byte.push(micros(first_byte));
            }
            Ok(Outcome::Refused) => self.refused += 1,
            Err(promise) => self.broke(promise),
        }
    }

    /// A promise of the whole run was broken.
    pub(crate) fn broke(&mut self, promise: String) {
        self.broken += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(promise);
        }
    }

    pub(crate) fn admitted(&self) -> u64 {
        self.admitted
    }

    /// Whether every promise was kept, by a run that did anything.
    pub(crate) fn kept(&self) -> bool {
        self.broken == 0 && self.requests > 0
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> std::io::Result<()> {
        writeln!(
            out,
            "{}: {} requests, {} answered, {} refused, {} promises broken",
            self.scenario, self.requests, self.admitted, self.refused, self.broken
        )?;
        for example in &self.examples {
            writeln!(out, "  broken: {example}")?;
        }
        for (name, samples) in [("total", &self.total), ("first byte", &self.first_byte)] {
            let mut sorted = samples.clone();
            sorted.sort_unstable();
            if let (Some(last), false) = (sorted.last(), sorted.is_empty()) {
                let at = |share: f64| millis(quantile(&sorted, share));
                writeln!(
                    out,
                    "  {name} ms: p50 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}",
                    at(0.5),
                    at(0.99),
                    at(0.999),
                    millis(*last)
                )?;
            }
        }
        Ok(())
    }
}

/// What a request that kept its promise came to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    Admitted {
        total: Duration,
        first_byte: Duration,
    },
    Refused,
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

fn millis(micros: u32) -> f64 {
    f64::from(micros) / 1000.0
}

/// Nearest rank.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss
)]
fn quantile(sorted: &[u32], share: f64) -> u32 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}
