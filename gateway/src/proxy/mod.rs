//! The data plane: one request from its head to its settlement.
//!
//! Read in this order: `route` (what is asked for), `auth` (who asks), `body`,
//! `rewrite` (facts of the body), `admit` (where to, and may it run; `demand`
//! says what it needs), `attempt` (the loop over upstream choices), `relay` and
//! `meter` (the answer), `settle`.
//!
//! Pingora keeps the client's side: HTTP/1.1, HTTP/2, TLS, keep-alive. The
//! upstream side is ours and runs inside `request_filter`, which answers by
//! itself; Pingora's own upstream path is never taken.

mod admit;
mod answer;
mod attempt;
mod auth;
mod body;
mod context;
pub(crate) mod demand;
mod encoding;
mod explain;
mod headers;
mod limit_headers;
pub mod meter;
mod models;
mod reject;
mod relay;
pub mod rewrite;
mod route;
mod rule_input;
mod settle;
mod stop;
mod stream_error;
mod tokenizer;
mod usage;
mod walk;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};

pub use context::{RequestContext, Services};
pub(crate) use explain::explain;
pub use tokenizer::TokenCounter;

/// The proxy service.
#[derive(Debug)]
pub struct Proxy {
    services: Arc<Services>,
}

impl Proxy {
    /// A proxy over what all requests share.
    pub fn new(services: Arc<Services>) -> Self {
        Proxy { services }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = RequestContext;

    fn new_ctx(&self) -> RequestContext {
        RequestContext::new(&self.services)
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        ctx: &mut RequestContext,
    ) -> pingora_core::Result<bool> {
        let walk = walk::walk(&mut session.downstream_session, ctx);
        let ended = AssertUnwindSafe(walk).catch_unwind().await;
        walk::conclude(&mut session.downstream_session, ctx, ended).await
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        _ctx: &mut RequestContext,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        Error::e_explain(
            ErrorType::InternalError,
            "request_filter answers every request",
        )
    }

    async fn fail_to_proxy(
        &self,
        _session: &mut Session,
        _error: &Error,
        _ctx: &mut RequestContext,
    ) -> FailToProxy {
        // The walk has answered what could be answered; what is left is to cut.
        FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        }
    }

    fn suppress_error_log(&self, _: &Session, _: &RequestContext, _: &Error) -> bool {
        true // told by `logging`, with the request's own facts
    }

    async fn logging(&self, _: &mut Session, _: Option<&Error>, ctx: &mut RequestContext) {
        if let Some(account) = &mut ctx.account {
            account.settle(account.end);
        }
    }
}
