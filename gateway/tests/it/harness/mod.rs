//! Real processes on free loopback ports, and the plain tools to talk to them.
//!
//! Every wait has a deadline and polls a condition; every process is ended by
//! its id when its value is dropped, and shows its log when the test failed.

pub mod api;
pub mod balanced;
pub mod client;
pub mod conf;
pub mod counted;
pub mod database;
pub mod events;
pub mod fault;
pub mod fleet;
pub mod h2c;
pub mod load;
pub mod mock;
pub mod network;
pub mod node;
pub mod ports;
pub mod postgres;
pub mod pressure;
pub mod process;
pub mod records;
pub mod source;
pub mod tls;
pub mod upstream;
pub mod wait;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub use client::{Answer, Ask, Connection};
pub use conf::Conf;
pub use fleet::Fleet;
pub use mock::Mock;
pub use node::Node;
pub use upstream::{Exchange, Upstream};
pub use wait::eventually;

/// The gateway under test: `TYR_BIN`, else the one cargo built for this run.
pub fn tyr_binary() -> PathBuf {
    std::env::var_os("TYR_BIN").map_or_else(|| env!("CARGO_BIN_EXE_tyr").into(), PathBuf::from)
}

/// An older gateway to upgrade from, when `TYR_PREVIOUS_BIN` names one.
pub fn previous_binary() -> Option<PathBuf> {
    std::env::var_os("TYR_PREVIOUS_BIN").map(PathBuf::from)
}

/// The mock provider: `MOCK_BIN`, else the one beside the gateway, built when missing.
pub fn mock_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = std::env::var_os("MOCK_BIN") {
        return path.into();
    }
    BUILT
        .get_or_init(|| {
            let built = Command::new(env!("CARGO"))
                .args([
                    "build",
                    "--quiet",
                    "--package",
                    "loadtest",
                    "--bin",
                    "mock-llm",
                ])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()
                .expect("cargo builds the mock provider");
            assert!(built.success(), "cargo builds the mock provider");
            Path::new(env!("CARGO_BIN_EXE_tyr")).with_file_name("mock-llm")
        })
        .clone()
}
