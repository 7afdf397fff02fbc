use std::net::{Ipv4Addr, SocketAddr};

use proto::v1 as wire;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::room::{LINKS, ROOM, SHARE};
use super::*;
use crate::convert::FRAME_BYTES;
use crate::message::{CAP_HOLDS, OUTCOME_BYTES, Outcome, PROTOCOL_MAX, PROTOCOL_MIN};
use crate::origin::Origin;
use crate::transport::keys::Keys;
use policy::Timestamp;

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// One end: what it shares among its links, and what happens on them.
struct End {
    links: Links,
    happened: mpsc::Receiver<Happened>,
}

fn end(name: &str, node: u128) -> End {
    end_with(name, node, "tyr", 1)
}

fn end_with(name: &str, node: u128, cluster: &str, secret: u8) -> End {
    end_of(name, node, cluster, &[secret]).1
}

fn end_of(name: &str, node: u128, cluster: &str, secrets: &[u8]) -> (Keys, End) {
    let keys = Keys::new(cluster, &secrets_of(secrets), &[]).unwrap();
    let (happened, happenings) = mpsc::channel(FRAMES);
    let text = String::new;
    let hello = Hello {
        origin: Origin {
            node: NodeKey(node),
            boot: 1,
        },
        name: name.to_owned(),
        cluster: cluster.to_owned(),
        region: text(),
        zone: text(),
        build: text(),
        proto_min: PROTOCOL_MIN,
        proto_max: PROTOCOL_MAX,
        caps: CAP_HOLDS,
        grpc_port: 0,
    };
    let links = Links {
        trust: Trust::new(keys.clone(), name, None).unwrap(),
        hello,
        local: LOCAL,
        dial_timeout: Duration::from_secs(10),
        happened,
        room: Room::default(),
        traffic: Traffic::default(),
        numbers: Arc::default(),
    };
    let end = End {
        links,
        happened: happenings,
    };
    (keys, end)
}

fn secrets_of(numbers: &[u8]) -> Vec<Vec<u8>> {
    numbers.iter().map(|&number| vec![number; 32]).collect()
}

impl End {
    /// Accepts links; until the sender is dropped.
    async fn serves(&self) -> (SocketAddr, oneshot::Sender<()>) {
        let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (serving, stopped) = oneshot::channel();
        tokio::spawn(serve(listener, self.links.clone(), stopped));
        (address, serving)
    }

    fn dials(&self, node: u128, name: &str, to: SocketAddr) -> JoinHandle<()> {
        let dialling = dial(self.links.clone(), NodeKey(node), name.to_owned(), to);
        tokio::spawn(dialling)
    }

    async fn next(&mut self) -> Happened {
        let next = tokio::time::timeout(Duration::from_secs(30), self.happened.recv());
        next.await.expect("something happens").expect("an end")
    }

    async fn up(&mut self) -> Up {
        match self.next().await {
            Happened::Up(up) => up,
            other => panic!("{other:?}"),
        }
    }

    async fn frame(&mut self) -> Frame {
        match self.next().await {
            Happened::Frame { frame, .. } => frame,
            other => panic!("{other:?}"),
        }
    }

    async fn down(&mut self) -> u64 {
        match self.next().await {
            Happened::Down { link, .. } => link,
            other => panic!("{other:?}"),
        }
    }

    async fn refused(&mut self) -> bool {
        match self.next().await {
            Happened::Failed { refused, .. } => refused,
            other => panic!("{other:?}"),
        }
    }

    /// Whether nothing has come up here.
    fn is_quiet(&mut self) -> bool {
        self.happened.try_recv().is_err()
    }
}

#[tokio::test]
async fn frames_go_both_ways_until_one_side_ends_the_link() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    let (address, _serving) = b.serves().await;
    a.dials(2, "b", address);
    let (mut at_a, mut at_b) = (a.up().await, b.up().await);
    assert_eq!((&*at_a.hello.name, &*at_b.hello.name), ("b", "a"));
    for revision in 1..=3 {
        let frame = Frame::Applied { revision };
        at_a.out.send(frame.clone()).unwrap();
        assert_eq!(b.frame().await, frame);
        at_b.out.send(frame.clone()).unwrap();
        assert_eq!(a.frame().await, frame);
    }
    let sent = |end: &End| {
        let mut figures = crate::view::Figures::default();
        end.links.traffic.fill(&mut figures);
        figures.link_bytes_sent
    };
    assert!(sent(&a) > 100 && sent(&b) > 100);
    drop(at_b.out);
    assert_eq!(b.down().await, at_b.link);
    assert_eq!(a.down().await, at_a.link);
}

#[tokio::test]
async fn the_dialling_side_may_end_it_too_and_dial_again() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    let (address, _serving) = b.serves().await;
    let mut numbers = Vec::new();
    for _ in 0..2 {
        a.dials(2, "b", address);
        let (at_a, at_b) = (a.up().await, b.up().await);
        numbers.push((at_a.link, at_b.link));
        drop(at_a.out);
        a.down().await;
        b.down().await;
    }
    assert_ne!(numbers[0], numbers[1]);
}

#[tokio::test]
async fn the_largest_frame_passes() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    let (address, _serving) = b.serves().await;
    a.dials(2, "b", address);
    let (mut at_a, _at_b) = (a.up().await, b.up().await);
    let outcome = Frame::Outcome(Outcome {
        task: "prices".to_owned(),
        scope: "cluster".to_owned(),
        term: 1,
        hash: [1; 32],
        at: Timestamp(1),
        body: vec![7; OUTCOME_BYTES].into(),
    });
    at_a.out.send(outcome.clone()).unwrap();
    assert_eq!(b.frame().await, outcome);
}

#[tokio::test]
async fn a_frame_that_is_too_large_is_not_sent_and_the_link_stays() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    let (address, _serving) = b.serves().await;
    a.dials(2, "b", address);
    let (mut at_a, _at_b) = (a.up().await, b.up().await);
    let mark = crate::message::ConfigurationMark {
        parts: vec![("x".repeat(FRAME_BYTES), [0; 32])],
        ..Default::default()
    };
    at_a.out.send(Frame::Configuration(mark)).unwrap();
    at_a.out.send(Frame::Drain).unwrap();
    assert_eq!(b.frame().await, Frame::Drain);
}

/// A stranger in the protocol: connects rightly, then says `frames`.
async fn says(a: &End, address: SocketAddr, frames: Vec<wire::Frame>) -> Vec<wire::Frame> {
    let config = a.links.trust.client("b").unwrap();
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls_pki_types::ServerName::try_from("tyr").unwrap();
    let stream = tokio_rustls::TlsConnector::from(config)
        .connect(name, stream)
        .await
        .unwrap();
    let mut io = Some(hyper_util::rt::TokioIo::new(stream));
    let connector = tonic_connector(move || io.take().unwrap());
    let channel = tonic::transport::Endpoint::from_static("http://tyr")
        .connect_with_connector(connector)
        .await
        .unwrap();
    let mut client = proto::v1::peer_client::PeerClient::new(channel);
    let (queue, outgoing) = mpsc::channel(16);
    for frame in frames {
        queue.send(frame).await.unwrap();
    }
    let answer = client
        .sync(tokio_stream::wrappers::ReceiverStream::new(outgoing))
        .await
        .unwrap();
    let mut incoming = answer.into_inner();
    let mut heard = Vec::new();
    while let Ok(Some(frame)) = incoming.message().await {
        heard.push(frame);
    }
    drop(queue);
    heard
}

type Io = hyper_util::rt::TokioIo<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

struct Connector<F>(F);

fn tonic_connector<F: FnMut() -> Io>(give: F) -> Connector<F> {
    Connector(give)
}

impl<F: FnMut() -> Io> tower_service::Service<http::Uri> for Connector<F> {
    type Response = Io;
    type Error = std::io::Error;
    type Future = std::future::Ready<std::io::Result<Io>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        std::future::ready(Ok((self.0)()))
    }
}

fn greeting(hello: Hello) -> wire::Frame {
    let mut outbound = crate::convert::Outbound::new(PROTOCOL_MAX);
    outbound.write(Frame::Hello(hello)).remove(0)
}

#[tokio::test]
async fn a_hello_that_is_not_that_of_the_certificate_ends_the_link() {
    let (a, mut b) = (end("a", 1), end("b", 2));
    let (address, _serving) = b.serves().await;
    let right = a.links.hello.clone();
    let wrong: [fn(&mut Hello); 4] = [
        |hello| hello.name = "c".to_owned(),
        |hello| hello.cluster = "other".to_owned(),
        |hello| hello.origin.node = NodeKey(2),
        |hello| (hello.proto_min, hello.proto_max) = (9, 9),
    ];
    for change in wrong {
        let mut hello = right.clone();
        change(&mut hello);
        let heard = says(&a, address, vec![greeting(hello)]).await;
        assert_eq!(heard.len(), 1, "its own hello and then the end");
        assert!(b.is_quiet());
    }
    let drain = crate::convert::Outbound::new(1).write(Frame::Drain);
    let heard = says(&a, address, drain).await;
    assert_eq!(heard.len(), 1, "no hello at all");
    assert!(b.is_quiet());
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_link() {
    let (a, mut b) = (end("a", 1), end("b", 2));
    let (address, _serving) = b.serves().await;
    let senseless = wire::Frame {
        body: Some(wire::frame::Body::Suspect(wire::Suspect { about: None })),
    };
    let too_large = wire::Frame {
        body: Some(wire::frame::Body::Outcome(wire::Outcome {
            task: "x".repeat(FRAME_BYTES),
            ..wire::Outcome::default()
        })),
    };
    for frame in [senseless, too_large] {
        let frames = vec![greeting(a.links.hello.clone()), frame];
        tokio::join!(says(&a, address, frames), async {
            let up = b.up().await;
            assert_eq!(b.down().await, up.link);
        });
    }
}

#[tokio::test]
async fn whoever_lacks_the_secret_or_is_of_another_cluster_or_name_gets_no_link() {
    let mut b = end("b", 2);
    let (address, _serving) = b.serves().await;
    for mut stranger in [end_with("a", 1, "tyr", 2), end_with("a", 1, "other", 1)] {
        stranger.dials(2, "b", address);
        assert!(!stranger.refused().await);
        assert!(b.is_quiet());
    }
    let mut a = end("a", 1);
    a.dials(2, "c", address);
    assert!(!a.refused().await, "another name was expected");
    a.dials(3, "b", address);
    assert!(!a.refused().await, "another node was expected");
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_refuses() {
    let mut a = end("a", 1);
    let b = end("b", 2);
    let (living, _serving) = b.serves().await;
    assert_eq!(probe(LOCAL, living).await, crate::core::ProbeOutcome::Open);
    // The kernel takes connections, and nobody does anything with them.
    let listener = TcpListener::bind((LOCAL, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    assert_eq!(
        probe(LOCAL, address).await,
        crate::core::ProbeOutcome::Silent
    );
    drop(listener);
    a.dials(2, "b", address);
    assert!(a.refused().await);
    assert_eq!(
        probe(LOCAL, address).await,
        crate::core::ProbeOutcome::Refused
    );
}

#[tokio::test]
async fn a_link_that_takes_nothing_is_refused_more() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    let (address, _serving) = b.serves().await;
    a.dials(2, "b", address);
    let (mut at_a, _at_b) = (a.up().await, b.up().await);
    let body: Arc<[u8]> = vec![7; OUTCOME_BYTES].into();
    let outcome = |term| {
        Frame::Outcome(Outcome {
            task: String::new(),
            scope: String::new(),
            term,
            hash: [0; 32],
            at: Timestamp(0),
            body: Arc::clone(&body),
        })
    };
    // Nothing is taken meanwhile: this task does not yield.
    let sent = (0..100).take_while(|&term| at_a.out.send(outcome(term)).is_ok());
    let sent = sent.count();
    assert_eq!(sent, MOST_QUEUED / (OUTCOME_BYTES + 100));
}

/// What a hostile member says: all that fits a frame.
fn flood(term: u64) -> Frame {
    Frame::Outcome(Outcome {
        task: String::new(),
        scope: String::new(),
        term,
        hash: [0; 32],
        at: Timestamp(0),
        body: vec![7; OUTCOME_BYTES].into(),
    })
}

#[tokio::test]
async fn a_flood_waits_at_its_sender_and_holds_up_nobody_else() {
    let (mut hostile, mut honest) = (end("hostile", 1), end("honest", 3));
    let mut b = end("b", 2);
    let (address, _serving) = b.serves().await;
    hostile.dials(2, "b", address);
    let (mut flooding, _at_b) = (hostile.up().await, b.up().await);
    honest.dials(2, "b", address);
    let (mut at_honest, _at_b_too) = (honest.up().await, b.up().await);
    const FLOOD: usize = 12;
    let flooding = tokio::spawn(async move {
        for term in 0..FLOOD as u64 {
            // As fast as its own queue takes them.
            while flooding.out.send(flood(term)).is_err() {
                tokio::task::yield_now().await;
            }
        }
        flooding
    });
    at_honest.out.send(Frame::Drain).unwrap();
    // Nothing is taken until the honest node was heard.
    let mut waiting = Vec::new();
    let mut next = async |waiting: &mut Vec<Happened>| {
        let happened = b.next().await;
        let honest = matches!(&happened, Happened::Frame { frame, .. } if *frame == Frame::Drain);
        waiting.push(happened);
        honest
    };
    while !next(&mut waiting).await {}
    let most = SHARE / OUTCOME_BYTES;
    assert!(waiting.len() <= most, "{} of the flood", waiting.len() - 1);
    let held = |waiting: &[Happened]| waiting.len() * OUTCOME_BYTES;
    assert!(held(&waiting) < ROOM);
    // Room comes back, and so does the rest: nothing was dropped.
    let mut came = waiting.len() - 1;
    drop(waiting);
    while came < FLOOD {
        match b.next().await {
            Happened::Frame { frame, .. } => assert_eq!(frame, flood(came as u64)),
            other => panic!("{other:?}"),
        }
        came += 1;
    }
    flooding.await.unwrap();
}

#[tokio::test]
async fn a_node_has_so_many_links_and_no_more() {
    let (mut a, mut b) = (end("a", 1), end("b", 2));
    // Each dial is of a process of its own.
    let room_of_its_own = |end: &mut End| end.links.room = Room::default();
    let (address, _serving) = b.serves().await;
    let mut links = Vec::new();
    for _ in 0..LINKS {
        room_of_its_own(&mut a);
        a.dials(2, "b", address);
        links.push((a.up().await, b.up().await));
    }
    room_of_its_own(&mut a);
    a.dials(2, "b", address);
    assert!(!a.refused().await);
    assert!(b.is_quiet());
    let (at_a, at_b) = links.pop().unwrap();
    drop(at_a.out);
    assert_eq!(b.down().await, at_b.link);
    assert_eq!(a.down().await, at_a.link);
    a.dials(2, "b", address);
    a.up().await;
}

#[tokio::test]
async fn a_link_ends_when_the_secret_that_stood_for_it_is_removed_and_not_before() {
    let (keys_a, mut a) = end_of("a", 1, "tyr", &[1]);
    let (keys_b, mut b) = end_of("b", 2, "tyr", &[1]);
    let (address, _serving) = b.serves().await;
    a.dials(2, "b", address);
    let (mut at_a, at_b) = (a.up().await, b.up().await);
    let change = |secrets: &[u8], ends: &[(&Keys, &End)]| {
        for (keys, end) in ends {
            keys.replace(&secrets_of(secrets)).unwrap();
            end.links.trust.renew();
        }
    };
    for secrets in [[1, 2], [2, 1]] {
        change(&secrets, &[(&keys_a, &a), (&keys_b, &b)]);
        at_a.out.send(Frame::Drain).unwrap();
        assert_eq!(b.frame().await, Frame::Drain, "the link stays");
    }
    // A link of the new secret, beside the one that came up with the old one.
    a.dials(2, "b", address);
    let (mut new_at_a, _new_at_b) = (a.up().await, b.up().await);
    change(&[2], &[(&keys_b, &b)]);
    assert_eq!(b.down().await, at_b.link);
    drop(at_b.out);
    assert_eq!(a.down().await, at_a.link);
    new_at_a.out.send(Frame::Drain).unwrap();
    assert_eq!(b.frame().await, Frame::Drain, "the new one stays");
    change(&[2], &[(&keys_a, &a)]);
    new_at_a.out.send(Frame::Drain).unwrap();
    assert_eq!(b.frame().await, Frame::Drain);
    assert!(a.is_quiet() && b.is_quiet());
}
