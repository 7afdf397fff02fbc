//! A running `tyr serve` with a configuration and a folder of its own.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Answer, Ask, Connection};
use super::conf::{ADMIN, Conf};
use super::process::Process;
use super::records::{Record, read_records};
use super::wait::{eventually, within};
use super::{ports, tyr_binary};

/// Longest start: the binary may be a debug build on a busy machine.
const START: Duration = Duration::from_secs(30);

/// One gateway process; ends with its value.
pub struct Node {
    pub data: SocketAddr,
    pub admin: SocketAddr,
    pub process: Process,
    folder: TempDir,
    place: Place,
}

/// What a process is started in, besides its folder.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The network namespace; `None`: that of the tests.
    pub network: Option<String>,
    /// How far its wall clock is ahead, in milliseconds.
    pub clock_ahead_ms: i64,
    /// The program; `None`: the one under test.
    pub program: Option<PathBuf>,
}

impl Node {
    /// Starts and waits until it is ready.
    #[track_caller]
    pub fn start(conf: &Conf) -> Self {
        let node = Self::launch(conf);
        node.await_ready();
        node
    }

    /// Starts without waiting.
    pub fn launch(conf: &Conf) -> Self {
        Self::launch_at(conf, ports::free(), ports::free(), Place::default())
    }

    /// Starts on these addresses, in that place, without waiting.
    pub fn launch_at(conf: &Conf, data: SocketAddr, admin: SocketAddr, place: Place) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the node");
        fs::write(
            folder.path().join("tyr.yaml"),
            conf.render(data, admin, folder.path()),
        )
        .expect("the configuration is written");
        let process = serve_into(folder.path(), &place, &[], "tyr.log");
        Self {
            data,
            admin,
            process,
            folder,
            place,
        }
    }

    /// Starts the process again on the same folder, after it ended.
    #[track_caller]
    pub fn start_again(&mut self) {
        self.launch_again();
        self.await_ready();
    }

    /// The same as `start_again`, without waiting.
    pub fn launch_again(&mut self) {
        self.process = serve_into(self.folder.path(), &self.place, &[], "tyr.log");
    }

    /// From its next start on it runs the program under test.
    pub fn renew_program(&mut self) {
        self.place.program = None;
    }

    /// Starts a second process on the same folder with more arguments.
    pub fn successor(&self, arguments: &[&str]) -> Process {
        serve_into(self.folder.path(), &self.place, arguments, "successor.log")
    }

    /// Its folder, with `tyr.yaml` and `tyr.db`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn conf_path(&self) -> PathBuf {
        self.folder.path().join("tyr.yaml")
    }

    /// Replaces the configuration file at once, as `mv` does.
    pub fn write_conf(&self, conf: &Conf) {
        self.write_text(&conf.render(self.data, self.admin, self.folder.path()));
    }

    /// Replaces the configuration file by this text at once.
    pub fn write_text(&self, text: &str) {
        let new = self.folder.path().join("new");
        fs::write(&new, text).expect("the configuration is written");
        fs::rename(&new, self.conf_path()).expect("the configuration is replaced");
    }

    /// Waits until `/readyz` answers 200 and the data port accepts.
    #[track_caller]
    pub fn await_ready(&self) {
        let ready = within(START, || {
            (self.readyz() == Some(200) && std::net::TcpStream::connect(self.data).is_ok())
                .then_some(())
        });
        assert!(
            ready.is_some(),
            "tyr is not ready; its log:\n{}",
            self.process.log()
        );
    }

    /// The status of `/readyz`; `None` when the port refuses.
    pub fn readyz(&self) -> Option<u16> {
        std::net::TcpStream::connect(self.admin).ok()?;
        let answer = Connection::open(self.admin).try_exchange(&Ask::get("/readyz"))?;
        Some(answer.status())
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn ask(&self, ask: &Ask) -> Answer {
        client::ask(self.data, ask)
    }

    /// A POST of JSON with the demo key.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask(&Ask::post(path, body))
    }

    /// A request to the admin port with the admin token.
    #[track_caller]
    pub fn admin(&self, method: &str, path: &str) -> Answer {
        client::ask(self.admin, &Ask::new(method, path).bearer(ADMIN))
    }

    /// What the admin API tells about the limits of a key, as a list.
    #[track_caller]
    pub fn standing(&self, key: &str) -> Vec<Value> {
        let answer = self.admin("GET", &format!("/api/virtual-keys/{key}"));
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()["standing"]
            .as_array()
            .cloned()
            .expect("standing is a list")
    }

    /// The standing of one unit of a key, such as `requests`, in its own scope.
    #[track_caller]
    pub fn standing_of(&self, key: &str, unit: &str) -> Value {
        let all = self.standing(key);
        let found = all
            .iter()
            .find(|one| one["unit"] == unit && one["scope"] == "virtual_key");
        found
            .cloned()
            .unwrap_or_else(|| panic!("no limit on {unit} in {all:?}"))
    }

    /// Waits until nothing is reserved for the key, then gives the standing of `unit`.
    #[track_caller]
    pub fn settled(&self, key: &str, unit: &str) -> Value {
        eventually("every reservation is settled", || {
            let standing = self.standing_of(key, unit);
            (number(&standing["reserved"]) == 0.0).then_some(standing)
        })
    }

    /// The text of `/metrics`.
    #[track_caller]
    pub fn metrics(&self) -> String {
        client::ask(self.admin, &Ask::get("/metrics")).text()
    }

    /// The sum of all series of a metric whose line contains `labels`; 0 without any.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics();
        let ours = text.lines().filter(|line| {
            let named = line
                .strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']));
            named && line.contains(labels)
        });
        ours.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// The usage records in the store now, oldest first.
    pub fn records(&self) -> Vec<Record> {
        read_records(&self.folder.path().join("tyr.db"))
    }

    /// Waits for exactly `count` records; more fail at once.
    #[track_caller]
    pub fn records_exactly(&self, count: usize) -> Vec<Record> {
        eventually(&format!("{count} usage records in the store"), || {
            let records = self.records();
            assert!(
                records.len() <= count,
                "more than {count} records: {records:#?}"
            );
            (records.len() == count).then_some(records)
        })
    }

    /// Waits for a line of the log that contains all `words`.
    #[track_caller]
    pub fn await_log(&self, words: &[&str]) -> String {
        eventually(&format!("a log line with {words:?}"), || {
            let log = self.process.log();
            let found = log
                .lines()
                .find(|line| words.iter().all(|word| line.contains(word)));
            found.map(str::to_string)
        })
    }
}

/// A number written as a number or as text, such as money.
pub fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .or_else(|| value.as_str()?.trim_start_matches('$').parse().ok())
        .unwrap_or_else(|| panic!("{value} is a number"))
}

fn serve_into(folder: &Path, place: &Place, arguments: &[&str], log: &str) -> Process {
    let program = place.program.clone().unwrap_or_else(tyr_binary);
    let mut command = match &place.network {
        None => Command::new(program),
        // It becomes the program, so its id is the node's.
        Some(network) => {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", network]).arg(program);
            command
        }
    };
    command
        .arg("serve")
        .arg("--conf")
        .arg(folder.join("tyr.yaml"))
        .args(arguments);
    command.current_dir(folder);
    if place.clock_ahead_ms != 0 {
        command.env("TYR_CLOCK_OFFSET_MS", place.clock_ahead_ms.to_string());
    }
    Process::start("tyr", &mut command, &folder.join(log))
}
