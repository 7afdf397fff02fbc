//! The order in which a request meets the parts of the data plane, and how
//! each way of stopping is told to the client.

use std::any::Any;
use std::time::Duration;

use bytes::Bytes;
use cluster::EndReason;
use http::StatusCode;
use http::header::UPGRADE;
use pingora_core::protocols::http::ServerSession;
use pingora_core::{Error, ErrorType};
use uuid::Uuid;

use super::admit::Asked;
use super::attempt::{self, Outgoing};
use super::auth::Identity;
use super::context::RequestContext;
use super::reject::{Reason, Refusal};
use super::rewrite;
use super::route::{Route, Target, route};
use super::rule_input::RuleInput;
use super::stop::Stop;
use super::{admit, answer, auth, body, headers, models, relay, usage};
use crate::api::Endpoint;
use crate::clock;
use crate::edge::{HEADERS_MAX, URI_MAX};

/// When to try again on a node that has just started: most catch up within this.
const CAUGHT_UP_SOON: Duration = Duration::from_secs(1);

/// One request, from its head to the end of its answer.
pub(super) async fn walk(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
) -> Result<(), Stop> {
    let Route { target, shape } = begin(session, ctx);
    ctx.shape = shape;
    judge_http2_head(session)?;
    let caller = match &target {
        Target::Root => return root(session, ctx).await,
        Target::Unknown => {
            let refusal = Refusal::new(Reason::NotFound, "nothing is served at this path");
            return Err(refusal.into());
        }
        Target::WrongMethod { allow } => return wrong_method(session, ctx, allow).await,
        _ => {
            refuse_before_caught_up(ctx)?;
            identify(session, ctx)?
        }
    };
    let policy = &ctx.live.policy;
    let document = match target {
        Target::Call(endpoint) => return call(session, ctx, endpoint, caller).await,
        Target::Model(id) => models::one(policy, &caller.key, shape, &id)?,
        Target::Usage => usage::document(policy, &caller, ctx.services.clock.now()),
        _ => {
            let query = session.req_header().uri.query().unwrap_or_default();
            models::list(policy, &caller.key, shape, query)
        }
    };
    answer::json(session, ctx, StatusCode::OK, &[], document).await
}

/// A node that does not know yet what the others have counted, nor perhaps every
/// key, judges nobody.
fn refuse_before_caught_up(ctx: &RequestContext) -> Result<(), Refusal> {
    if !ctx.services.readiness.is_catching_up() {
        return Ok(());
    }
    let message = "this node has just started and does not know yet what the others have counted";
    Err(Refusal {
        retry_after: Some(CAUGHT_UP_SOON),
        ..Refusal::new(Reason::NotReady, message)
    })
}

/// Who calls; of the address only the connection's own counts.
fn identify(session: &ServerSession, ctx: &RequestContext) -> Result<Identity, Refusal> {
    let peer = session.client_addr().and_then(|address| address.as_inet());
    let peer = peer.map(std::net::SocketAddr::ip);
    let headers = &session.req_header().headers;
    auth::identify(&ctx.live, headers, peer, ctx.services.clock.now())
}

fn begin(session: &mut ServerSession, ctx: &mut RequestContext) -> Route {
    if ctx.services.readiness.is_draining() {
        session.set_keepalive(None);
    }
    session.set_write_timeout(Some(ctx.live.bounds.write_stall));
    let head = session.req_header();
    ctx.record_id = Uuid::now_v7().to_string();
    ctx.request_id = match headers::accepted_request_id(&head.headers) {
        Some(id) => id.to_owned(),
        None => ctx.record_id.clone(),
    };
    route(&head.method, head.uri.path(), &head.headers)
}

/// The edge judges heads of HTTP/1 as bytes; those of HTTP/2 are judged here.
fn judge_http2_head(session: &ServerSession) -> Result<(), Refusal> {
    if !session.is_http2() {
        return Ok(());
    }
    let head = session.req_header();
    let uri = &head.uri;
    let length = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if length > URI_MAX {
        let message = format!("the path and query are longer than {URI_MAX} bytes");
        return Err(Refusal::new(Reason::UriTooLong, message));
    }
    if head.headers.len() > HEADERS_MAX {
        let message = format!("there are more than {HEADERS_MAX} headers");
        return Err(Refusal::new(Reason::HeadTooLarge, message));
    }
    // Servers behind may read `x_a` and `x-a` as one name.
    if head.headers.keys().any(|name| name.as_str().contains('_')) {
        let message = "a header's name has an underscore";
        return Err(Refusal::new(Reason::InvalidRequest, message));
    }
    Ok(())
}

/// A call to a provider.
async fn call(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    endpoint: Endpoint,
    caller: Identity,
) -> Result<(), Stop> {
    let before_body = ctx.started.elapsed();
    let body = body::read(session, ctx).await?;
    let received = clock::monotonic();
    let facts = rewrite::read_facts(&body, endpoint, ctx.live.bounds.max_json_depth).map_err(
        |problem| {
            let refusal = Refusal::new(Reason::InvalidRequest, problem.to_string());
            refusal.param(problem.param())
        },
    )?;
    let plan = {
        let head = session.req_header();
        let input = RuleInput {
            headers: &head.headers,
            query: head.uri.query(),
        };
        let asked = Asked {
            endpoint,
            body: &body,
            facts: &facts,
            input,
        };
        admit::admit(ctx, caller, &asked).await?
    };
    if let Some(account) = &mut ctx.account {
        account.overhead = before_body + received.elapsed();
    }
    let head = session.req_header();
    let (client_headers, query) = (head.headers.clone(), head.uri.query().map(str::to_owned));
    let outgoing = Outgoing {
        body: &body,
        facts: &facts,
        client_headers: &client_headers,
        query: query.as_deref(),
        plan: &plan,
    };
    let answer = attempt::run(session, ctx, &outgoing).await?;
    relay::relay(session, ctx, answer).await
}

/// Some clients look whether anybody is there before their first call.
async fn root(session: &mut ServerSession, ctx: &RequestContext) -> Result<(), Stop> {
    let body = Bytes::from_static(b"{\"service\":\"tyr\"}");
    answer::json(session, ctx, StatusCode::OK, &[], body).await
}

async fn wrong_method(
    session: &mut ServerSession,
    ctx: &RequestContext,
    allow: &'static str,
) -> Result<(), Stop> {
    // Clients that prefer a WebSocket fall back to POST on this answer.
    let upgrade = session.req_header().headers.contains_key(UPGRADE);
    let refusal = if upgrade {
        Refusal::new(
            Reason::UpgradeRefused,
            "protocol upgrades are not served; use POST",
        )
    } else {
        let message = format!("this path takes {allow}");
        Refusal::new(Reason::MethodNotAllowed, message)
    };
    ctx.services.metrics.refusal(refusal.reason.label());
    answer::refuse(session, ctx, &refusal, Some(allow)).await
}

/// Tells the client how the walk ended, where it can still be told, and lets
/// Pingora keep or cut the connection.
pub(super) async fn conclude(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    ended: Result<Result<(), Stop>, Box<dyn Any + Send>>,
) -> pingora_core::Result<bool> {
    let stop = match ended {
        Ok(Ok(())) => return Ok(true),
        Ok(Err(stop)) => stop,
        Err(_) => on_panic(session, ctx),
    };
    let told = match stop {
        Stop::Refuse(refusal) => refuse(session, ctx, &refusal).await,
        other => Err(other),
    };
    match told {
        Ok(()) => Ok(true),
        Err(Stop::ClientGone) => {
            settle(ctx, EndReason::ClientGone);
            Error::e_explain(ErrorType::ConnectionClosed, "the client left")
        }
        Err(_) => Error::e_explain(ErrorType::InternalError, "the answer was cut"),
    }
}

async fn refuse(
    session: &mut ServerSession,
    ctx: &mut RequestContext,
    refusal: &Refusal,
) -> Result<(), Stop> {
    let reason = refusal.reason.label();
    ctx.services.metrics.refusal(reason);
    let status = refusal.status(ctx.shape).as_u16();
    tracing::info!(target: "tyr::access", request_id = %ctx.request_id, status, reason,
        limit = refusal.limit.as_deref(), "refused");
    if let Some(account) = &mut ctx.account {
        account.status = status;
    }
    // An unread body would be taken for the next request.
    if !session.is_body_done() {
        session.set_keepalive(None);
    }
    let told = answer::refuse(session, ctx, refusal, None).await;
    if told.is_ok() && !session.is_body_done() {
        body::linger(session).await;
    }
    let end = match refusal.reason {
        Reason::UpstreamTimeout => EndReason::Timeout,
        Reason::Internal => EndReason::Panic,
        _ => EndReason::UpstreamError,
    };
    settle(ctx, end);
    told
}

fn on_panic(session: &ServerSession, ctx: &mut RequestContext) -> Stop {
    tracing::error!(request_id = %ctx.request_id, "a request panicked");
    if let Some(account) = &mut ctx.account {
        account.end = EndReason::Panic;
    }
    let written = session.response_written();
    if written.is_some_and(|head| !head.status.is_informational()) {
        return Stop::Cut;
    }
    Refusal::new(Reason::Internal, "the gateway failed on this request")
        .closing()
        .into()
}

fn settle(ctx: &mut RequestContext, end: EndReason) {
    if let Some(account) = &mut ctx.account {
        account.settle(end);
    }
}
