//! The port over real sockets on loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tokio::sync::watch;

use super::world::{ADMIN, World};
use crate::admin::{AdminServer, bind, serve};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn start() -> (AdminServer, SocketAddr, watch::Sender<bool>) {
    let listener = bind(ANY_PORT).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = watch::channel(false);
    let server = serve(listener, World::new().router, stopped).expect("a thread");
    (server, address, stop)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    let patience = Some(Duration::from_secs(10));
    stream.set_read_timeout(patience).expect("a timeout");
    stream
}

/// Sends `request` and reads until the port closes.
fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn get_and_head_are_answered_and_the_port_closes_when_told() {
    let (server, address, stop) = start();
    let get = exchange(
        address,
        "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    assert!(
        get.starts_with("HTTP/1.1 200 OK") && get.ends_with("\r\n\r\nok"),
        "{get}"
    );
    let head = exchange(
        address,
        "HEAD /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
    );
    assert!(
        head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(head.contains("content-length: 2"), "{head}");

    // An idle connection must not hold up the end.
    let mut idle = connect(address);
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        .expect("sent");
    let mut first = [0; 8];
    idle.read_exact(&mut first).expect("an answer");
    stop.send(true).expect("the port listens");
    server.join();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn two_processes_may_hold_the_address() {
    let first = bind(ANY_PORT).expect("a free port");
    let address = first.local_addr().expect("an address");
    let second = bind(address).expect("the same port again");
    assert_eq!(second.local_addr().expect("an address"), address);
}

#[test]
fn heads_are_bounded() {
    let (server, address, stop) = start();
    let long = format!(
        "GET /livez HTTP/1.1\r\nx: {}\r\n\r\n",
        "y".repeat(128 * 1024)
    );
    let mut stream = connect(address);
    // The port may close before it has read everything.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    let answer = exchange(address, &many);
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    drop(stop);
    server.join();
}

#[test]
fn an_address_that_is_not_ours_is_an_error_that_names_it() {
    let foreign = SocketAddr::from(([192, 0, 2, 1], 9090));
    let error = bind(foreign).expect_err("not an address of this machine");
    assert!(error.to_string().contains("192.0.2.1:9090"), "{error}");
}

/// A request of an administrator on a connection of its own.
fn call(line: &str, body: &str) -> String {
    let length = body.len();
    let head = format!("authorization: Bearer {ADMIN}\r\ncontent-length: {length}\r\n");
    format!("{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n{body}")
}

#[test]
fn a_slow_store_holds_up_neither_reads_nor_a_revocation() {
    let world = World::new();
    let slow = world.ledger.slow.lock().expect("no panic holds it");
    let listener = bind(ANY_PORT).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = watch::channel(false);
    let server = serve(listener, world.router.clone(), stopped).expect("a thread");
    let send = |request: String| {
        let mut stream = connect(address);
        stream.write_all(request.as_bytes()).expect("sent");
        stream
    };
    let mut waiting: Vec<TcpStream> = (0..20)
        .map(|n| {
            send(call(
                "POST /api/customers",
                &format!("{{\"name\": \"c{n}\"}}"),
            ))
        })
        .collect();
    waiting.push(send(call("POST /api/virtual-keys/zeta/revoke", "")));
    let read = exchange(address, &call("GET /api/virtual-keys/demo", ""));
    assert!(read.starts_with("HTTP/1.1 200"), "{read}");
    let refused = world
        .ledger
        .refused
        .lock()
        .expect("no panic holds it")
        .clone();
    assert_eq!(refused, ["zeta"], "in memory, while all others wait");
    drop(slow);
    for mut stream in waiting {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
    drop(stop);
    server.join();
}

#[test]
fn a_revocation_is_answered_though_another_change_waits_for_the_store() {
    let world = World::new();
    let slow = world.ledger.slow.lock().expect("no panic holds it");
    let listener = bind(ANY_PORT).expect("a free port");
    let address = listener.local_addr().expect("an address");
    let (stop, stopped) = watch::channel(false);
    let server = serve(listener, world.router.clone(), stopped).expect("a thread");
    let mut waits = connect(address);
    let make = call("POST /api/customers", "{\"name\": \"c\"}");
    waits.write_all(make.as_bytes()).expect("sent");
    // The lock is held: without an end of its own this would wait for ever.
    let revoke = |name: &str| {
        let path = format!("POST /api/virtual-keys/{name}/revoke");
        exchange(address, &call(&path, ""))
    };
    let answer = revoke("demo");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("\"persisted\":false"), "{answer}");
    let trail = || {
        world
            .ledger
            .trail
            .lock()
            .expect("no panic holds it")
            .clone()
    };
    let kept = "keep virtual-keys/demo by ops from 127.0.0.1";
    assert_eq!(trail(), [kept], "on this node, in any case");
    let answer = revoke("none");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    drop(slow);
    let mut made = String::new();
    waits.read_to_string(&mut made).expect("an answer");
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    // Behind the revocation that was answered: it was brought to its end.
    let answer = exchange(address, &call("POST /api/customers", "{\"name\": \"d\"}"));
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let revoked = trail().iter().any(|line| line.starts_with("revoke "));
    assert!(revoked, "{:?}", trail());
    drop(stop);
    server.join();
}
