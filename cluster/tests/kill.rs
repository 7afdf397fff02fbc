//! A real process, killed with SIGKILL while it works: what it had reported as written is there
//! after a restart, each record once.
#![allow(clippy::unwrap_used, reason = "a test says where it fails")]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use cluster::audit::AuditKey;
use cluster::{Basis, EndReason, Node, NodeConfig, StoreConfig, UsageRecord};
use policy::{Charge, Clock, NanoUsd, Timestamp, Usage};

const DATA_DIR: &str = "TYR_TEST_KILL_DATA_DIR";
const LIFE: &str = "TYR_TEST_KILL_LIFE";

/// Records that may wait at once: fewer than the queue takes, so that they are written in order.
const IN_FLIGHT: u64 = 4_000;

#[derive(Debug)]
struct FixedClock;

impl Clock for FixedClock {
    fn now(&self) -> Timestamp {
        Timestamp(1_764_000_000_000)
    }
}

fn start(dir: &Path) -> Node {
    let config = NodeConfig {
        data_dir: dir.to_owned(),
        take_over: false,
        audit: AuditKey::keyless(),
        cluster: None,
        counters: Arc::default(),
        store: StoreConfig::Sqlite {
            path: dir.join("tyr.db"),
        },
    };
    cluster::start(config, Arc::new(FixedClock)).unwrap()
}

fn record(life: u64, number: u64) -> UsageRecord {
    let charge = |counter: &str, amount| Charge {
        counter: counter.into(),
        epoch: 1,
        amount,
        expires_at: Timestamp(u64::MAX),
    };
    UsageRecord {
        request_id: format!("{life:08}-{number:024}"),
        key: "demo".to_owned(),
        team: None,
        customer: None,
        user: None,
        rule: None,
        model_requested: "gpt".to_owned(),
        model_served: None,
        provider: None,
        credential: None,
        endpoint: "chat_completions".to_owned(),
        stream: false,
        usage: Usage::default(),
        cost: NanoUsd(3),
        basis: Basis::Reported,
        status: 200,
        started_at: Timestamp(1),
        first_byte_ms: None,
        duration_ms: 1,
        attempts: 1,
        end: EndReason::Success,
        upstream_request_id: None,
        charges: vec![charge("requests", 1), charge("usd", 3)],
    }
}

/// The process that is killed: records without end and says how many are written. Does nothing
/// unless the test below starts it in a process of its own.
#[test]
fn victim() {
    let Some(dir) = std::env::var_os(DATA_DIR).map(PathBuf::from) else {
        return;
    };
    let life = std::env::var(LIFE).unwrap().parse().unwrap();
    let node = start(&dir);
    let recorder = node.recorder();
    let mut told = 0;
    for number in 0.. {
        recorder.record(record(life, number));
        loop {
            let written = node.status().snapshot().records_written;
            if written != told {
                told = written;
                writeln!(std::io::stdout(), "\nwritten {written}").unwrap();
            }
            if number < written + IN_FLIGHT {
                break;
            }
            thread::yield_now();
        }
    }
}

/// Runs one life until it has reported `enough` written records, kills it, and returns what it
/// reported last.
fn live_and_die(dir: &Path, life: u64, enough: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(DATA_DIR, dir)
        .env(LIFE, life.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut written = 0;
    let mut note = |line: String| {
        let figure = line.strip_prefix("written ");
        written = figure.map_or(written, |figure| figure.parse().unwrap());
        written
    };
    while note(lines.next().unwrap().unwrap()) < enough {}
    child.kill().unwrap();
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(9), "it was alive until then: {ended}");
    // What it said before it died counts too; the last line may be cut.
    let mut rest: Vec<String> = lines.map_while(Result::ok).collect();
    rest.pop();
    rest.into_iter().for_each(|line| {
        note(line);
    });
    written
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    let dir = tempfile::tempdir().unwrap();
    for (life, enough) in [(1, 1), (2, 3_000), (3, 700)] {
        let written = live_and_die(dir.path(), life, enough);
        assert!(written >= enough);

        let node = start(dir.path());
        let log = node.usage_log();
        for number in 0..written {
            let record = record(life, number);
            let stored = log.usage(&record.request_id).unwrap();
            assert_eq!(stored, Some(record), "of {written} written");
        }
        let count = log.count().unwrap();
        let cells = node.cells();
        let amount = |counter: &str| {
            let cell = cells.iter().find(|cell| cell.counter == counter);
            cell.map_or(0, |cell| cell.amount)
        };
        assert_eq!(amount("requests"), count);
        assert_eq!(amount("usd"), count * 3);
        assert_eq!(node.status().snapshot().damaged_lines, 0);
        node.stop();
    }
}
