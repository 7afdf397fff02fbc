//! What waits until the node knows what the others have counted.
//!
//! A node that starts answers calls with 503 until then; one that takes over
//! accepts no connection before, as no request of a hand-over may fail.

use std::io;
use std::net::TcpListener;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ::cluster::ClusterHandle;
use tokio::sync::watch;

use super::Parts;
use crate::admin::{AdminServer, Readiness};
use crate::clock;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(10);

/// After which time it is told that it takes long: no rule of readiness waits
/// longer where the others and the store can be reached, or have been before.
const USUAL: Duration = Duration::from_secs(12);

/// How long a process that takes over is silent on the admin port at most: the
/// old one closes its own two seconds after it has sent the sockets, and up to
/// one has passed when they are here.
const SILENT: Duration = Duration::from_millis(800);

/// How long a process that takes over accepts nothing at most. The old one
/// accepts for five seconds of it; then connections wait in the kernel.
const HELD_BACK: Duration = Duration::from_secs(30);

/// Lets the data port serve as soon as the node has caught up; `None` where
/// there is nobody to catch up with.
pub(super) fn serve_when_caught_up(
    parts: &Parts,
    stopped: watch::Receiver<bool>,
) -> io::Result<Option<JoinHandle<()>>> {
    let Some(cluster) = parts.cluster.clone() else {
        return Ok(None);
    };
    let readiness = parts.readiness.clone();
    let wait = move || watch_cluster(&cluster, &readiness, &stopped);
    let thread = thread::Builder::new().name("tyr-catch-up".to_owned());
    thread.spawn(wait).map(Some)
}

fn watch_cluster(cluster: &ClusterHandle, readiness: &Readiness, stopped: &watch::Receiver<bool>) {
    let (start, mut told) = (clock::monotonic(), false);
    while !cluster.is_caught_up() {
        if *stopped.borrow() {
            return;
        }
        if !told && start.elapsed() > USUAL {
            told = true;
            tracing::warn!(
                "neither another node nor, before, this one has told what was counted: \
                 calls get 503 until the store or a node of the cluster can be reached"
            );
        }
        thread::sleep(LOOK);
    }
    readiness.set_catching_up(false);
}

/// Opens the admin port of a process that takes over; returns when its data port
/// may accept.
pub(super) fn take_over(
    parts: &Parts,
    port: TcpListener,
    closed: watch::Receiver<bool>,
) -> anyhow::Result<AdminServer> {
    wait(parts, SILENT);
    let admin = super::admin::serve(parts, port, closed)?;
    if wait(parts, HELD_BACK) {
        parts.readiness.set_catching_up(false);
    } else {
        tracing::error!("not caught up with the cluster: does the old process keep its addresses?");
    }
    Ok(admin)
}

/// Waits for the end of threads that wait for the start.
pub(super) fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread that waits for the start ended in a panic");
        }
    }
}

fn wait(parts: &Parts, at_most: Duration) -> bool {
    let start = clock::monotonic();
    let caught_up = || {
        parts
            .cluster
            .as_ref()
            .is_none_or(ClusterHandle::is_caught_up)
    };
    while !caught_up() {
        if start.elapsed() >= at_most {
            return false;
        }
        thread::sleep(LOOK);
    }
    true
}
