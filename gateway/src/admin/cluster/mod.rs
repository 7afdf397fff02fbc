//! `GET /api/cluster`, `POST /api/cluster/diagnose`, and on how many nodes a
//! write is in force.
//!
//! Promise: the view is the one of this node and is answered from memory; a
//! diagnosis is told as it goes. A node that stands alone answers, too: it is
//! its only member.

mod applied;
mod shown;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use cluster::view::AppliedOn;
use cluster::{ClusterHandle, ClusterView, Diagnosis};
use futures_util::stream;
use http::{StatusCode, header};
use serde_json::json;
use tokio::sync::mpsc;

use super::Shared;
use super::answer::Failure;

pub(super) use applied::{InForce, Spread, WAITERS};
use shown::of_view;
pub use shown::{ClusterShown, DegradedShown, DiagnosisLine, Finding, MemberShown, state_word};

/// Longest diagnosis: every check of it has a deadline of its own.
const DIAGNOSIS: Duration = Duration::from_secs(30);

/// Lines of a diagnosis that wait for a slow reader.
const LINES: usize = 64;

/// The other nodes, as the admin port needs them.
pub trait Cluster: Send + Sync {
    /// The cluster as this node sees it.
    fn view(&self) -> Arc<ClusterView>;
    /// On how many nodes everything up to `revision` is in force. Blocks until
    /// it is all of them, or for `at_most`.
    fn wait_applied(&self, revision: u64, at_most: Duration) -> AppliedOn;
    /// On how many nodes the key with this hash is refused. Blocks the same.
    fn wait_revoked(&self, hash: &str, at_most: Duration) -> AppliedOn;
    /// Checks the way to every member.
    fn diagnose(&self) -> Receiver<Diagnosis>;
    /// Tells the others that this node is about to go.
    fn drain(&self);
    /// Whether the thread that talks to them hangs, so that the view is old.
    fn is_stalled(&self) -> bool;
}

impl Cluster for ClusterHandle {
    fn view(&self) -> Arc<ClusterView> {
        ClusterHandle::view(self)
    }

    fn wait_applied(&self, revision: u64, at_most: Duration) -> AppliedOn {
        ClusterHandle::wait_applied(self, revision, at_most)
    }

    fn wait_revoked(&self, hash: &str, at_most: Duration) -> AppliedOn {
        ClusterHandle::wait_revoked(self, hash, at_most)
    }

    fn diagnose(&self) -> Receiver<Diagnosis> {
        ClusterHandle::diagnose(self)
    }

    fn drain(&self) {
        ClusterHandle::drain(self);
    }

    fn is_stalled(&self) -> bool {
        ClusterHandle::is_stalled(self)
    }
}

impl fmt::Debug for dyn Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// The cluster as this node sees it.
pub(super) async fn show(State(shared): State<Shared>) -> Json<ClusterShown> {
    Json(match &shared.state.cluster {
        Some(cluster) => {
            let mut shown = of_view(&cluster.view());
            if cluster.is_stalled() {
                shown.note_stalled();
            }
            shown
        }
        None => ClusterShown::alone(&shared.state.node),
    })
}

/// One line of JSON for each finding, and a last one that says whether that
/// was all.
pub(super) async fn diagnose(State(shared): State<Shared>) -> Result<Response, Failure> {
    // A diagnosis holds a thread for as long as it runs.
    let turn = Arc::clone(&shared.diagnosing).try_acquire_owned();
    let busy = |_| Failure::new(StatusCode::CONFLICT, "busy", "another diagnosis runs");
    let turn = turn.map_err(busy)?;
    let (sender, lines) = mpsc::channel(LINES);
    let cluster = shared.state.cluster.clone();
    match cluster {
        Some(cluster) => {
            tokio::task::spawn_blocking(move || {
                let until = crate::clock::monotonic() + DIAGNOSIS;
                tell(&cluster.diagnose(), &sender, until);
                drop(turn);
            });
        }
        // There is room for one line.
        None => drop(sender.try_send(line(&DiagnosisLine::end(true, 0)))),
    }
    let body = stream::unfold(lines, async |mut lines| {
        let line = lines.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(line), lines))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(body)).into_response())
}

/// Passes findings on until there are no more, or `until`. Blocks. A caller that
/// has left ends it, and so does one that does not read.
pub(super) fn tell(findings: &Receiver<Diagnosis>, lines: &mpsc::Sender<Bytes>, until: Instant) {
    let runtime = tokio::runtime::Handle::current();
    let send = |told| {
        let sending = tokio::time::timeout_at(until.into(), lines.send(told));
        matches!(runtime.block_on(sending), Ok(Ok(())))
    };
    let mut failed = 0_u64;
    let whole = loop {
        let left = until.saturating_duration_since(crate::clock::monotonic());
        match findings.recv_timeout(left) {
            Ok(finding) => {
                failed += u64::from(!finding.ok);
                if !send(line(&DiagnosisLine::Found(finding.into()))) {
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => break true,
            Err(RecvTimeoutError::Timeout) => break false,
        }
    };
    // Told even when the time is over, if there is room for it.
    send(line(&DiagnosisLine::end(whole, failed)));
}

fn line(told: &DiagnosisLine) -> Bytes {
    Bytes::from(format!("{}\n", json!(told)))
}
