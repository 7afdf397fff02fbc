//! `/livez`, `/readyz`, `/metrics` and `POST /api/drain`.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use cluster::ClusterView;
use http::{StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;

use super::auth::Caller;
use super::{Degraded, Shared};

/// A node that wants no new traffic.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Draining {
    draining: bool,
    /// Requests that have begun and not ended.
    in_flight: u64,
}

/// The process runs and this thread turns; says nothing of anything else, so
/// that no lost part gets the process restarted.
pub(super) async fn livez() -> &'static str {
    "ok"
}

/// 200 while the node wants traffic, what it is without included.
pub(super) async fn readyz(State(shared): State<Shared>) -> Response {
    let readiness = &shared.state.readiness;
    shared.refresh();
    let reasons = readiness.reasons();
    let status = match reasons.is_empty() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    let degraded: Vec<_> = Degraded::ALL
        .into_iter()
        .filter(|part| readiness.is_degraded(*part))
        .map(Degraded::as_str)
        .collect();
    let mut body = json!({
        "ready": reasons.is_empty(),
        "draining": readiness.is_draining(),
        "reasons": reasons,
        "degraded": degraded,
    });
    if let Some(cluster) = &shared.state.cluster {
        body["members"] = json!(concerned(&cluster.view()));
    }
    (status, Json(body)).into_response()
}

/// How many members each reason concerns, where it does. Whoever asks has shown
/// no token: who they are stands in `GET /api/cluster`.
fn concerned(view: &ClusterView) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for reason in &view.degraded {
        let members = reason.nodes().len();
        if members > 0 {
            *counts.entry(reason.as_str()).or_default() += members;
        }
    }
    counts
}

/// Everything the registry knows, after a look at the store.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let readiness = &shared.state.readiness;
    shared.refresh();
    let observed = shared.state.cluster.as_ref().map(|cluster| cluster.view());
    if let Some(view) = observed {
        shared.state.metrics.observe_cluster(&view);
    }
    let parts = Degraded::ALL.map(|part| (part.as_str(), readiness.is_degraded(part)));
    let metrics = &shared.state.metrics;
    metrics.observe_readiness(readiness.wants_traffic(), parts);
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.render()).into_response()
}

/// Makes `/readyz` fail, so that a load balancer looks elsewhere. Requests are
/// served as before; the caller waits for `in_flight` to reach zero and then
/// ends the process.
pub(super) async fn drain(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
) -> Json<Draining> {
    shared.state.readiness.start_draining();
    if let Some(cluster) = &shared.state.cluster {
        cluster.drain();
    }
    shared.note("drain", &caller).await;
    Json(Draining {
        draining: true,
        in_flight: shared.state.metrics.in_flight_now(),
    })
}

impl Shared {
    /// Takes over what the store and the configuration say now.
    fn refresh(&self) {
        let status = (self.state.store_status)();
        self.state.metrics.observe_usage(status);
        let readiness = &self.state.readiness;
        readiness.set_degraded(Degraded::Store, !status.store_ok);
        readiness.set_degraded(Degraded::UsageFile, !status.journal_ok);
        if let Some(cluster) = &self.state.cluster {
            let view = cluster.view();
            let stalled = cluster.is_stalled();
            if stalled && !readiness.is_degraded(Degraded::ClusterStalled) {
                tracing::error!("the thread tyr-cluster hangs: the node wants no traffic");
            }
            readiness.set_degraded(Degraded::ClusterStalled, stalled);
            readiness.set_catching_up(!view.caught_up);
            let holds = |part: Degraded| {
                let mut reasons = view.degraded.iter();
                reasons.any(|reason| reason.as_str() == part.as_str())
            };
            for part in Degraded::OF_CLUSTER {
                readiness.set_degraded(part, holds(part));
            }
            if holds(Degraded::Store) {
                readiness.set_degraded(Degraded::Store, true);
            }
        }
        let misfit = self.state.live.load().misfit.is_some();
        readiness.set_degraded(Degraded::Entities, misfit);
    }
}
