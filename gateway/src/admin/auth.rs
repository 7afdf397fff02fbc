//! Who may call what under `/api/`.
//!
//! One guard around the whole API wants a known token; one before each route
//! wants the right that the route table names for it, so a route cannot be
//! left open. Bearer tokens only; there is no cookie that a foreign page could
//! use.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use policy::KeyHash;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::Shared;
use super::answer::Failure;
use super::rights::{Operation, Resource, Rights};
use crate::config::catalogue::Actor;
use crate::state::AdminToken;

/// Largest body of a call.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// How long a body may take to arrive.
const BODY_PATIENCE: Duration = Duration::from_secs(10);

/// The address a call comes from, as the listener saw it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) IpAddr);

/// Who calls, once the token is known.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The token's name.
    pub(super) name: Arc<str>,
    /// What it may do, its ceiling taken into account.
    pub(super) rights: Rights,
    /// Where the call comes from.
    pub(super) peer: IpAddr,
}

impl Caller {
    /// Refuses whoever lacks this right.
    pub(super) fn needs(&self, resource: Resource, operation: Operation) -> Result<(), Failure> {
        if self.rights.contains(resource, operation) {
            return Ok(());
        }
        let (resource, operation) = (resource.as_str(), operation.as_str());
        let message = format!("this token lacks the right {resource}:{operation}");
        Err(Failure::forbidden(message))
    }

    /// The same for the audit trail.
    pub(super) fn actor(&self) -> Actor {
        Actor {
            name: self.name.as_ref().to_owned(),
            peer: self.peer.to_string(),
        }
    }
}

/// Lets a call through whose token is known, and logs each change.
pub(super) async fn guard(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let peer = request
        .extensions()
        .get::<Peer>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let caller = authenticate(&shared, request.headers(), peer)?;
    let by = Arc::clone(&caller.name);
    request.extensions_mut().insert(caller);
    let response = next.run(request).await;
    if !matches!(method, Method::GET | Method::HEAD) {
        let status = response.status().as_u16();
        tracing::info!(target: "tyr::audit", %by, %peer, %method, path, status, "admin call");
    }
    Ok(response)
}

/// Lets a call through that has `need`, with its whole body.
pub(super) async fn authorise(
    need: (Resource, Operation),
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    let (resource, operation) = need;
    let caller = request.extensions().get::<Caller>();
    // No caller means that the guard is not in place: then nobody may.
    let caller = caller.ok_or_else(Failure::internal)?;
    caller.needs(resource, operation)?;
    Ok(next.run(with_whole_body(request).await?).await)
}

fn authenticate(shared: &Shared, headers: &HeaderMap, peer: IpAddr) -> Result<Caller, Failure> {
    let live = shared.state.live.load();
    if live.admin.tokens.is_empty() {
        return Err(Failure::new(
            StatusCode::FORBIDDEN,
            "admin_api_off",
            "the admin API is off because no admin token is configured; set one in the \
             configuration, for example admin: {tokens: [{name: ops, role: admin, value: \
             env.TYR_ADMIN_TOKEN}]}, and reload",
        ));
    }
    let now = shared.state.clock.now();
    if let Some(wait) = shared.throttle.wait(peer, now) {
        let seconds = wait.as_secs_f64().ceil() as u64;
        let message = "too many wrong tokens from this address; wait for the time in retry-after";
        return Err(
            Failure::new(StatusCode::TOO_MANY_REQUESTS, "too_many_failures", message)
                .with_header(header::RETRY_AFTER, HeaderValue::from(seconds)),
        );
    }
    // Asking without a token guesses nothing, so it does not count.
    let token = bearer(headers).ok_or_else(|| unauthorized("an admin token is needed"))?;
    let found = find(&live.admin.tokens, &KeyHash::of(token));
    let caller = found.map(|token| Caller {
        name: Arc::clone(&token.name),
        rights: token.rights,
        peer,
    });
    caller.ok_or_else(|| {
        shared.throttle.failed(peer, now);
        shared.state.metrics.admin_auth_failure();
        tracing::warn!(target: "tyr::audit", %peer, "wrong admin token");
        unauthorized("the admin token is wrong")
    })
}

fn unauthorized(message: &str) -> Failure {
    let challenge = HeaderValue::from_static("Bearer realm=\"tyr admin\"");
    let message = format!("{message}: send Authorization: Bearer <admin token>");
    Failure::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
        .with_header(header::WWW_AUTHENTICATE, challenge)
}

/// The bearer token; two Authorization headers are as good as none.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.as_bytes(), values.next()) else {
        return None;
    };
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"Bearer ") && !token.is_empty()).then_some(token)
}

/// Looks at every token, whether or not one has matched, and compares hashes
/// in constant time: the time tells nothing of how close a guess was.
fn find<'a>(tokens: &'a [AdminToken], hash: &KeyHash) -> Option<&'a AdminToken> {
    let none = u64::MAX;
    let found = (0_u64..).zip(tokens).fold(none, |found, (index, token)| {
        let same: Choice = token.hash.0.ct_eq(&hash.0);
        u64::conditional_select(&found, &index, same)
    });
    tokens.get(usize::try_from(found).ok()?)
}

/// Takes the body in before the call is run, so that a slow or large one costs
/// a refusal and never a half-done call.
async fn with_whole_body(request: Request) -> Result<Request, Failure> {
    let (parts, body) = request.into_parts();
    let whole = tokio::time::timeout(BODY_PATIENCE, to_bytes(body, MAX_BODY_BYTES))
        .await
        .map_err(|_| {
            let message = "the body did not arrive in time";
            Failure::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
        })?
        .map_err(|_| {
            let message = format!("the body is broken or larger than {MAX_BODY_BYTES} bytes");
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
        })?;
    Ok(Request::from_parts(parts, Body::from(whole)))
}
