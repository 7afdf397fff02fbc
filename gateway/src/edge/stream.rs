//! A connection whose first bytes were read and judged before the proxy.
//!
//! Promise: the proxy reads exactly the bytes that were judged, in their order,
//! then the rest of the connection. Everything but reading passes through.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::{SslDigest, TlsRef};
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

/// Room for a usual head; bodies that follow it are read by the proxy itself.
const ROOM: usize = 4096;
/// A larger buffer than this is not kept while a connection is idle.
const KEPT_ROOM: usize = 16 * 1024;

/// A connection with the bytes that were read ahead of the proxy.
#[derive(Debug)]
pub(super) struct GuardedStream {
    inner: Stream,
    ahead: BytesMut,
}

impl GuardedStream {
    pub(super) fn new(inner: Stream) -> Self {
        GuardedStream {
            inner,
            ahead: BytesMut::new(),
        }
    }

    /// The bytes read ahead and not yet read by the proxy.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Reads more bytes ahead; 0 = the client sends nothing more. Loses
    /// nothing when dropped half-way.
    pub(super) async fn read_ahead(&mut self) -> io::Result<usize> {
        if self.ahead.is_empty() && self.ahead.capacity() > KEPT_ROOM {
            self.ahead = BytesMut::new();
        }
        if self.ahead.capacity() - self.ahead.len() < ROOM / 4 {
            self.ahead.reserve(ROOM);
        }
        self.inner.read_buf(&mut self.ahead).await
    }
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.inner).poll_read(context, buf);
        }
        let n = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..n]);
        self.ahead.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[async_trait]
impl Shutdown for GuardedStream {
    async fn shutdown(&mut self) {
        Shutdown::shutdown(&mut *self.inner).await;
    }
}

impl UniqueID for GuardedStream {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for GuardedStream {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for GuardedStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for GuardedStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for GuardedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

#[async_trait]
impl Peek for GuardedStream {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        while self.ahead.len() < buf.len() {
            if self.read_ahead().await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        buf.copy_from_slice(&self.ahead[..buf.len()]);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn bytes_read_ahead_come_first_and_none_is_lost() {
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let mut stream = GuardedStream::new(Box::new(server));
        client.write_all(b"first ").await.unwrap();
        assert_eq!(stream.read_ahead().await.unwrap(), 6);
        client.write_all(b"second").await.unwrap();
        assert_eq!(stream.read_ahead().await.unwrap(), 6);
        assert_eq!(stream.ahead(), b"first second");

        let mut peeked = [0; 14];
        client.write_all(b", third").await.unwrap();
        assert!(stream.try_peek(&mut peeked).await.unwrap());
        assert_eq!(&peeked, b"first second, ");

        drop(client);
        let mut all = Vec::new();
        let mut piece = [0; 5];
        loop {
            match stream.read(&mut piece).await.unwrap() {
                0 => break,
                n => all.extend_from_slice(&piece[..n]),
            }
        }
        assert_eq!(all, b"first second, third");
    }

    #[tokio::test]
    async fn peeking_past_the_end_is_an_error() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut stream = GuardedStream::new(Box::new(server));
        client.write_all(b"short").await.unwrap();
        drop(client);
        let error = stream.try_peek(&mut [0; 24]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(stream.ahead(), b"short");
    }

    #[tokio::test]
    async fn a_large_buffer_is_let_go_when_empty() {
        let (mut client, server) = tokio::io::duplex(128 * 1024);
        let mut stream = GuardedStream::new(Box::new(server));
        client.write_all(&[b'x'; 60_000]).await.unwrap();
        while stream.ahead().len() < 60_000 {
            stream.read_ahead().await.unwrap();
        }
        stream.read_exact(&mut [0; 60_000]).await.unwrap();
        client.write_all(b"next").await.unwrap();
        stream.read_ahead().await.unwrap();
        assert!(stream.ahead.capacity() <= KEPT_ROOM);
        assert_eq!(stream.ahead(), b"next");
    }
}
