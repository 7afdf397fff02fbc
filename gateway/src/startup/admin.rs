//! What the admin port reads and calls, wired to the node.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::cluster::audit::AuditRow;
use ::cluster::{EntityLog, StatusSnapshot, UsageLog};
use anyhow::Context;
use tokio::sync::watch;

use super::Parts;
use crate::admin::{
    self, AdminState, AuditReader, AuditUnavailable, AuditedChange, ReloadProblem, UsageFound,
    UsageQuery, UsageReader, UsageUnavailable,
};
use crate::config::Problem;
use crate::sidecar;
use crate::telemetry::metrics::UsageStatus;

pub(super) fn serve(
    parts: &Parts,
    listener: TcpListener,
    closed: watch::Receiver<bool>,
) -> anyhow::Result<admin::AdminServer> {
    let reloader = parts.reloader.clone();
    let tls = parts.tls.clone();
    let status = parts.node.status();
    let pending = parts.store_pending.clone();
    let state = AdminState {
        live: parts.live.clone(),
        metrics: parts.metrics.clone(),
        clock: parts.clock.clone(),
        readiness: parts.readiness.clone(),
        reload: Arc::new(move || {
            let reloaded = reloader.reload();
            sidecar::reload_tls(tls.as_deref());
            match reloaded {
                Ok(reloaded) => Ok(reloaded.revision),
                Err(problems) => Err(problems.iter().map(reload_problem).collect()),
            }
        }),
        store_status: Arc::new(move || {
            let mut status = usage_status(&status.snapshot());
            status.store_ok &= !pending.load(Ordering::Acquire);
            status
        }),
        predictor: parts.predictor.clone(),
        node: parts.node_id.clone(),
        entities: parts.catalogue.clone(),
        audit: Arc::new(Trail(parts.node.entities())),
        cluster: parts
            .cluster
            .clone()
            .map(|handle| Arc::new(handle) as Arc<dyn admin::Cluster>),
        usage: Some(Arc::new(Records(parts.node.usage_log()))),
        prices: parts.prices.board.clone(),
    };
    let router = admin::router(state);
    admin::serve(listener, router, closed).context("the admin port")
}

fn reload_problem(problem: &Problem) -> ReloadProblem {
    ReloadProblem {
        file: problem.file.display().to_string(),
        line: problem.line,
        path: problem.path.clone(),
        message: problem.message.clone(),
    }
}

fn usage_status(status: &StatusSnapshot) -> UsageStatus {
    UsageStatus {
        store_ok: status.store_ok,
        journal_ok: status.journal_ok,
        written: status.records_written,
        stored: status.records_stored,
        overflowed: status.records_overflowed,
        lost: status.records_lost,
        queue_depth: status.queue_depth,
        waiting_bytes: status.waiting_bytes,
    }
}

/// Usage records as the admin port shows them.
struct Records(UsageLog);

impl Records {
    fn value(record: &cluster::UsageRecord) -> Result<serde_json::Value, UsageUnavailable> {
        serde_json::to_value(record).map_err(|error| UsageUnavailable {
            reason: error.to_string(),
        })
    }
}

impl UsageReader for Records {
    fn record(&self, request_id: &str) -> Result<Option<serde_json::Value>, UsageUnavailable> {
        let found = self.0.usage(request_id).map_err(|error| UsageUnavailable {
            reason: error.to_string(),
        })?;
        found.as_ref().map(Self::value).transpose()
    }

    fn recent(&self, query: &UsageQuery) -> Result<UsageFound, UsageUnavailable> {
        let limit = u32::try_from(query.limit).unwrap_or(u32::MAX);
        let page = self
            .0
            .recent(limit, query.after.as_deref(), query.key.as_deref());
        let page = page.map_err(|error| UsageUnavailable {
            reason: error.to_string(),
        })?;
        let records: Result<_, _> = page.records.iter().map(Self::value).collect();
        Ok(UsageFound {
            records: records?,
            next: page.next,
        })
    }
}

/// The audit trail as the admin port shows it.
struct Trail(EntityLog);

impl AuditReader for Trail {
    fn after(&self, after: u64, most: usize) -> Result<Vec<AuditedChange>, AuditUnavailable> {
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let rows = self.0.audit(after, most);
        let rows = rows.map_err(|error| AuditUnavailable {
            reason: error.to_string(),
        })?;
        Ok(rows.into_iter().map(audited).collect())
    }
}

fn audited(row: AuditRow) -> AuditedChange {
    // What was written is JSON; anything else is shown as the text it is.
    let body =
        |text: String| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
    AuditedChange {
        seq: row.seq,
        at: row.change.at.to_rfc3339(),
        actor: row.change.actor,
        peer: row.change.peer,
        action: row.change.action,
        kind: row.change.kind,
        name: row.change.name,
        before: row.change.before.map(body),
        after: row.change.after.map(body),
        revision: (row.revision > 0).then_some(row.revision),
        hash: hex::encode(row.hash),
        key_id: row.key_id,
    }
}
