//! Exchanges over TCP: one question, one answer, both sealed.
//!
//! Promise: an exchange takes at most [`DEADLINE`] and [`LARGEST`] bytes each way, and at most
//! [`MOST_CONNECTIONS`] are served at a time. Whoever accepts begins with a fresh challenge; the
//! question opens only together with it, and the answer only together with both, so neither can be
//! played again.
//!
//! On the wire: the challenge (32 bytes), then question and answer, each a length (4 bytes,
//! big-endian) and a sealed message.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::guests::Guests;
use super::keys::Purpose;
use super::seal::{BadSources, Nonce, OVERHEAD, Sealer, open};
use super::socket::connect;
use super::traffic::Traffic;
use crate::core::ExchangeFailure;

/// For a whole exchange.
const DEADLINE: Duration = Duration::from_secs(5);

/// Largest content of a question or an answer, in bytes.
pub(crate) const LARGEST: usize = 1 << 20;

/// Connections that are served at a time, a quarter of them of one address; more are closed at once.
const MOST_CONNECTIONS: usize = 64;

/// After accepting failed, which means that the system is out of something.
const PAUSE: Duration = Duration::from_millis(100);

const CHALLENGE: usize = 32;

/// A question that came in.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) content: Bytes,
    /// Takes the answer. Dropped: there is none.
    pub(crate) answer: oneshot::Sender<Vec<u8>>,
}

/// Answers questions, with what those who take them out of `asked` say; for ever.
pub(crate) async fn serve(
    listener: TcpListener,
    sealer: Sealer,
    asked: mpsc::Sender<Asked>,
    traffic: Traffic,
) {
    let started = Instant::now();
    let mut connections = Guests::new(MOST_CONNECTIONS);
    let mut sources = BadSources::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let source = from.ip();
                    let room = connections.has_room_for(source);
                    if !room || !sources.allows(source, started.elapsed()) {
                        traffic.gossip_refused();
                        continue;
                    }
                    let answering = answer(stream, sealer.clone(), asked.clone(), traffic.clone());
                    connections.serve(source, async move {
                        let result = timeout(DEADLINE, answering).await;
                        (from, result.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())))
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the cluster");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(ended) = connections.next() => {
                if let Ok((from, Err(error))) = ended {
                    tracing::debug!(%from, %error, "an exchange was refused");
                    traffic.gossip_refused();
                    sources.note_bad(from.ip(), started.elapsed());
                }
            }
        }
    }
}

async fn answer(
    mut stream: TcpStream,
    sealer: Sealer,
    asked: mpsc::Sender<Asked>,
    traffic: Traffic,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let challenge: [u8; CHALLENGE] = rand::random();
    stream.write_all(&challenge).await?;
    let bytes = read(&mut stream, &traffic).await?;
    let question = open(sealer.keys(), Purpose::Exchange, &challenge, &bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let (answer, answered) = oneshot::channel();
    let ask = Asked {
        content: question.content.into(),
        answer,
    };
    // If nobody takes questions or gives an answer the node is about to stop, or the core found the
    // question senseless. That is not for the source to be blamed for: it has the secret.
    if asked.send(ask).await.is_err() {
        return Ok(());
    }
    let Ok(content) = answered.await else {
        return Ok(());
    };
    let bound = bound(&challenge, &question.nonce);
    let (bytes, _) = sealer.seal(Purpose::Exchange, &bound, &content);
    write(&mut stream, &bytes, &traffic).await
}

/// Asks the node at `to`, from the address `local`.
pub(crate) async fn ask(
    sealer: &Sealer,
    local: IpAddr,
    to: SocketAddr,
    content: &[u8],
    traffic: &Traffic,
) -> Result<Bytes, ExchangeFailure> {
    match timeout(DEADLINE, try_ask(sealer, local, to, content, traffic)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => {
            tracing::debug!(%to, %error, "an exchange failed");
            Err(match error.kind() {
                io::ErrorKind::ConnectionRefused => ExchangeFailure::Refused,
                io::ErrorKind::TimedOut => ExchangeFailure::TimedOut,
                _ => ExchangeFailure::Broken,
            })
        }
        Err(_) => Err(ExchangeFailure::TimedOut),
    }
}

async fn try_ask(
    sealer: &Sealer,
    local: IpAddr,
    to: SocketAddr,
    content: &[u8],
    traffic: &Traffic,
) -> io::Result<Bytes> {
    let mut stream = connect(local, to).await?;
    let mut challenge = [0; CHALLENGE];
    stream.read_exact(&mut challenge).await?;
    let (bytes, nonce) = sealer.seal(Purpose::Exchange, &challenge, content);
    write(&mut stream, &bytes, traffic).await?;
    let bytes = read(&mut stream, traffic).await?;
    let bound = bound(&challenge, &nonce);
    let answer = open(sealer.keys(), Purpose::Exchange, &bound, &bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(answer.content.into())
}

/// What an answer is bound to: the challenge, and the question by its nonce, which is as fresh.
fn bound(challenge: &[u8; CHALLENGE], question: &Nonce) -> Vec<u8> {
    [challenge.as_slice(), question].concat()
}

async fn read(stream: &mut (impl AsyncRead + Unpin), traffic: &Traffic) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await? as usize;
    if length > LARGEST + OVERHEAD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "too long"));
    }
    // Room is made as bytes come, so that a length alone costs nothing.
    let mut bytes = Vec::new();
    let read = stream.take(length as u64).read_to_end(&mut bytes).await?;
    traffic.gossip_received(4 + read);
    if read < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

async fn write(
    stream: &mut (impl AsyncWrite + Unpin),
    bytes: &[u8],
    traffic: &Traffic,
) -> io::Result<()> {
    if bytes.len() > LARGEST + OVERHEAD {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too long"));
    }
    stream.write_u32(bytes.len() as u32).await?;
    stream.write_all(bytes).await?;
    stream.flush().await?;
    traffic.gossip_sent(4 + bytes.len());
    Ok(())
}

#[cfg(test)]
mod tests;
