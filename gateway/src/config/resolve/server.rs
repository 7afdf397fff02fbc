//! `server`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use super::{Checks, Startup, TlsFiles, store};
use crate::config::file::{AddressText, File, ServerTls};
use crate::config::problem::FieldPath;
use crate::config::reference::{Written, host_name, written};
use crate::state::RequestBounds;

/// Fewest characters of a token that clients present.
pub(super) const LEAST_TOKEN: usize = 16;
/// Fewest characters of a key that encrypts.
pub(super) const LEAST_KEY: usize = 32;

pub(super) fn startup(checks: &mut Checks<'_>, file: &File) -> Startup {
    let server = &file.server;
    let at = FieldPath::root().key("server");
    let listen = listen(checks, &at.key("listen"), file);
    let admin_at = at.key("admin_listen");
    let admin_listen = address(checks, &admin_at, &server.admin_listen);
    if admin_listen.port() != 0 && listen.contains(&admin_listen) {
        checks.problem(&admin_at, "is also an address of `server.listen`");
    }
    Startup {
        listen,
        admin_listen,
        tls: server
            .tls
            .as_ref()
            .map(|tls| tls_files(checks, &at.key("tls"), tls)),
        drain_grace: server.drain_grace.get(),
        node_id: node_id(file),
        data_dir: path(checks, &at.key("data_dir"), &server.data_dir),
        upgrade_socket: server
            .upgrade_socket
            .as_ref()
            .map(|socket| path(checks, &at.key("upgrade_socket"), socket)),
        store: store::store(checks, file),
        threads: server.threads.map(usize::from),
        header_timeout: checks.positive(&at.key("header_timeout"), &server.header_timeout),
        idle_timeout: checks.positive(&at.key("idle_timeout"), &server.idle_timeout),
        max_connections: server.max_connections as usize,
        max_connections_per_address: server.max_connections_per_address as usize,
        // Judged by itself.
        cluster: None,
    }
}

fn node_id(file: &File) -> String {
    match &file.cluster.node_id {
        Some(name) => name.clone(),
        None => host_name().unwrap_or_else(|| "node".to_owned()),
    }
}

pub(super) fn bounds(checks: &mut Checks<'_>, file: &File) -> RequestBounds {
    let server = &file.server;
    let at = FieldPath::root().key("server");
    if server.max_body.bytes() == 0 {
        checks.problem(&at.key("max_body"), "must be more than zero");
    }
    if server.max_held_bodies.bytes() < server.max_body.bytes() {
        checks.problem(
            &at.key("max_held_bodies"),
            "must not be less than `max_body`",
        );
    }
    RequestBounds {
        max_body: server.max_body.bytes(),
        max_held_bodies: server.max_held_bodies.bytes(),
        body_min_rate: server.body_min_rate.bytes(),
        max_json_depth: server.max_json_depth as usize,
        write_stall: checks.positive(&at.key("write_stall"), &server.write_stall),
        keep_alive: checks.positive(&at.key("keep_alive"), &server.keep_alive),
    }
}

fn listen(checks: &mut Checks<'_>, at: &FieldPath, file: &File) -> Vec<SocketAddr> {
    let texts = &file.server.listen.0;
    let mut addresses = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let at = match texts.len() {
            1 => at.clone(),
            _ => at.index(index),
        };
        let address = address(checks, &at, text);
        if address.port() != 0 && addresses.contains(&address) {
            checks.problem(&at, format!("{address} is listed twice"));
        }
        addresses.push(address);
    }
    addresses
}

/// An `IP:port`; stood in for by one of this machine when it is not readable.
fn address(checks: &mut Checks<'_>, at: &FieldPath, text: &AddressText) -> SocketAddr {
    let stand_in = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let Some(text) = checks.read(at, &text.0) else {
        return stand_in;
    };
    text.parse().unwrap_or_else(|_| {
        let shown = text.escape_debug();
        let message =
            format!("expected an IP address and a port such as `0.0.0.0:8080`, found `{shown}`");
        checks.problem(at, message);
        stand_in
    })
}

fn path(checks: &mut Checks<'_>, at: &FieldPath, text: &AddressText) -> PathBuf {
    PathBuf::from(checks.read(at, &text.0).unwrap_or_default())
}

fn tls_files(checks: &mut Checks<'_>, at: &FieldPath, tls: &ServerTls) -> TlsFiles {
    TlsFiles {
        cert: named_file(checks, &at.key("cert"), &tls.cert),
        key: named_file(checks, &at.key("key"), &tls.key),
    }
}

/// A file that is opened by who needs it: here `file.PATH` is its name.
pub(super) fn named_file(checks: &mut Checks<'_>, at: &FieldPath, text: &AddressText) -> PathBuf {
    let path = match written(&text.0) {
        Ok(Written::File(path)) => PathBuf::from(path),
        _ => match checks.read(at, &text.0) {
            Some(path) => PathBuf::from(path),
            None => return PathBuf::new(),
        },
    };
    if let Err(message) = checks.references.opens(&path) {
        checks.problem(at, message);
    }
    path
}
