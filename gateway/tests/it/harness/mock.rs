//! A running `mock-llm` and what it counted.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use super::client::{self, Ask};
use super::process::Process;
use super::wait::within;
use super::{mock_binary, ports};

/// One mock provider; ends with its value.
pub struct Mock {
    pub address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Mock {
    /// Starts one that answers at once.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with more arguments.
    pub fn with(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the log");
        let address = ports::free();
        let mut command = Command::new(mock_binary());
        command
            .args(["--listen", &address.to_string()])
            .args(arguments);
        let process = Process::start("mock-llm", &mut command, &folder.path().join("mock.log"));
        let up = within(Duration::from_secs(30), || {
            std::net::TcpStream::connect(address).ok()
        });
        assert!(
            up.is_some(),
            "mock-llm listens; its log:\n{}",
            process.log()
        );
        Self {
            address,
            _process: process,
            _folder: folder,
        }
    }

    /// `GET /mock/stats`.
    pub fn stats(&self) -> Value {
        client::ask(self.address, &Ask::get("/mock/stats")).json()
    }

    /// How many requests it was sent.
    pub fn requests(&self) -> u64 {
        self.stats()["requests"].as_u64().expect("a count")
    }

    /// The last request it was sent.
    pub fn last(&self) -> Value {
        self.stats()["last"].clone()
    }
}
