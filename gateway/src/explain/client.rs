//! One call to the admin port.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::ExplainError;
use crate::admin::explain::Question;

/// Longest wait for the answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Largest answer.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// The node's answer, as it came.
pub(super) fn ask(admin: &str, token: &str, question: &Question) -> Result<Value, ExplainError> {
    let uri = address(admin)?;
    let unreachable = |reason: String| ExplainError::Unreachable {
        address: admin.to_owned(),
        reason,
    };
    let body = serde_json::to_vec(question).map_err(ExplainError::Unreadable)?;
    let request = Request::post(uri)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| ExplainError::NoToken)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unreachable(error.to_string()))?;
    let (status, body) = runtime.block_on(async {
        let call = tokio::time::timeout(PATIENCE, call(request)).await;
        call.map_err(|_| unreachable("it did not answer in time".to_owned()))?
            .map_err(unreachable)
    })?;
    let answer = serde_json::from_slice::<Value>(&body);
    if status != 200 {
        let said = answer.ok().and_then(|answer| {
            let message = answer.pointer("/error/message")?.as_str()?;
            Some(message.to_owned())
        });
        let message = said.unwrap_or_else(|| "and nothing more".to_owned());
        return Err(ExplainError::Refused { status, message });
    }
    answer.map_err(ExplainError::Unreadable)
}

fn address(admin: &str) -> Result<Uri, ExplainError> {
    let text = format!("{}/api/explain", admin.trim_end_matches('/'));
    let uri: Uri = text
        .parse()
        .map_err(|_| ExplainError::Address(admin.to_owned()))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(_)) => Ok(uri),
        _ => Err(ExplainError::Address(admin.to_owned())),
    }
}

async fn call(request: Request<Full<Bytes>>) -> Result<(u16, Bytes), String> {
    // A second call changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let tls = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let answer = client
        .request(request)
        .await
        .map_err(|error| causes(&error))?;
    let status = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    Ok((status, body.to_bytes()))
}

/// An error with what it comes from.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
