//! Whole documents in, problems or a `Live` out.

mod bad;
mod catalogue;
mod cluster;
mod folder;
mod governance;
mod live;
mod mark;
mod meaning;
mod prices;
mod reload;
mod robust;
mod samples;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use policy::CounterTable;

use super::{Environment, Problem, References, ResolveInto, Resolved, check, parse_all, resolve};
use crate::upstream::ClientPool;

/// What is wrong with this text as `t.yaml`, one line each; references are not
/// read.
fn judge(text: &str) -> String {
    let texts = [(PathBuf::from("t.yaml"), text.to_owned())];
    let problems = match parse_all(&texts) {
        Ok(document) => check(&document, References::Skip).err().unwrap_or_default(),
        Err(problems) => problems,
    };
    lines(&problems)
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn variables(pairs: &[(&str, &str)]) -> Environment {
    let variables: BTreeMap<String, String> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Environment::of(variables, PathBuf::new())
}

/// Resolves a text that has to be right.
fn resolved(text: &str, counters: &Arc<CounterTable>) -> Resolved {
    let texts = [(PathBuf::from("t.yaml"), text.to_owned())];
    let document = parse_all(&texts).unwrap_or_else(|problems| panic!("{}", lines(&problems)));
    let into = ResolveInto {
        counters,
        clients: &ClientPool::new(),
        revision: 7,
        environment: &variables(&[("OPENAI_API_KEY", "sk-from-the-environment")]),
        previous: None,
    };
    resolve(&document, &into).unwrap_or_else(|problems| panic!("{}", lines(&problems)))
}
