//! The programs as they are run: mock-llm as a process, load-driver as its judge.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

struct Mock {
    child: Child,
    base: String,
}

impl Mock {
    fn start(directives: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mock-llm"))
            .args(["--listen", "127.0.0.1:0", "--directives", directives])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("mock-llm listening on ").unwrap();
        Self {
            base: format!("http://{address}"),
            child,
        }
    }

    fn judge(&self, scenario: &[&str]) -> Output {
        let (name, flags) = scenario.split_first().unwrap();
        Command::new(env!("CARGO_BIN_EXE_load-driver"))
            .args([name, "--target", self.base.as_str()])
            .args(flags)
            .output()
            .unwrap()
    }

    fn keeps(&self, scenario: &[&str]) {
        let output = self.judge(scenario);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }

    fn breaks(&self, scenario: &[&str], promise: &str) {
        let output = self.judge(scenario);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(promise), "{said}");
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed by then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const UNARY: [&str; 5] = ["unary", "--rate", "50", "--seconds", "1"];
const STREAMING: [&str; 5] = ["streaming", "--streams", "4", "--seconds", "1"];

#[test]
fn a_good_provider_keeps_every_promise() {
    let mock = Mock::start("");
    mock.keeps(&UNARY);
    mock.keeps(&STREAMING);
    mock.keeps(&["limits", "--limit", "20", "--requests", "20"]);
}

#[test]
fn broken_answers_are_noticed() {
    Mock::start("status=500 times=1 id=x").breaks(&UNARY, "status 500");
    Mock::start("no_usage").breaks(&UNARY, "no usage");
    Mock::start("no_done").breaks(&STREAMING, "not in [DONE]");
    Mock::start("cut_after=5").breaks(&STREAMING, "body broke off");
}

#[test]
fn limits_are_judged_by_the_exact_number_and_by_retry_after() {
    let burst = ["limits", "--limit", "15", "--requests", "20"];
    Mock::start("status=429 retry_after=1 times=5").keeps(&burst);
    Mock::start("status=429 retry_after=1 times=4").breaks(&burst, "16 admitted, the limit is 15");
    Mock::start("status=429 times=5").breaks(&burst, "retry-after");
}

#[test]
fn several_nodes_are_asked_in_turn_and_judged_together() {
    let refusing = Mock::start("status=429 retry_after=1");
    let mut both = Mock::start("");
    both.base = format!("{},{}", refusing.base, both.base);
    let burst = |limit| {
        let burst = ["cluster", "--requests", "20", "--rate", "100"];
        [&burst[..], &["--slack", "1", "--limit", limit]].concat()
    };
    both.keeps(&burst("10"));
    both.keeps(&burst("9"));
    both.breaks(&burst("8"), "10 admitted by 2 nodes, 7..=9 may be");
    both.breaks(&burst("13"), "10 admitted by 2 nodes, 11..=14 may be");
}

#[test]
fn a_target_that_is_away_breaks_the_run() {
    let mut mock = Mock::start("");
    mock.child.kill().unwrap();
    mock.child.wait().unwrap();
    mock.breaks(&UNARY, "no head");
}
