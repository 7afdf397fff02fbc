//! Content codings of request and answer bodies (RFC 9110, section 8.4).
//!
//! Requests are decoded under a cap before anything reads them. Answers pass
//! as they are; a decoded copy goes to the meter.

use std::io::{self, Read, Write};

use bytes::Bytes;

/// A coding the gateway can undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Brotli,
    Zstd,
}

/// Why a body could not be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum DecodeError {
    /// Nothing was kept; the client sends less.
    #[error("the decoded body is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// Nothing was kept; the client sends a sound body.
    #[error("the body is not valid {coding}: {source}")]
    Damaged {
        coding: &'static str,
        source: io::Error,
    },
}

impl Coding {
    /// The coding that a `content-encoding` value names; `None` for one that
    /// is not known, or for several in a row.
    pub(super) fn parse(value: Option<&[u8]>) -> Option<Coding> {
        let name = value.unwrap_or(b"identity").trim_ascii();
        let known: [(&[u8], Coding); 6] = [
            (b"", Coding::Identity),
            (b"identity", Coding::Identity),
            (b"gzip", Coding::Gzip),
            (b"x-gzip", Coding::Gzip),
            (b"br", Coding::Brotli),
            (b"zstd", Coding::Zstd),
        ];
        known
            .iter()
            .find(|(text, _)| name.eq_ignore_ascii_case(text))
            .map(|(_, coding)| *coding)
    }

    fn name(self) -> &'static str {
        match self {
            Coding::Identity => "identity",
            Coding::Gzip => "gzip",
            Coding::Brotli => "br",
            Coding::Zstd => "zstd",
        }
    }

    /// Decodes a whole body of at most `limit` decoded bytes.
    pub(super) fn decode(self, body: &Bytes, limit: u64) -> Result<Bytes, DecodeError> {
        let damaged = |source| DecodeError::Damaged {
            coding: self.name(),
            source,
        };
        let input = body.as_ref();
        let mut decoded = Vec::new();
        let mut reader: Box<dyn Read + '_> = match self {
            Coding::Identity => return Ok(body.clone()),
            Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(input)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(input, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(input).map_err(damaged)?),
        };
        // One byte past the limit tells "too large" from "exactly full".
        (&mut reader)
            .take(limit.saturating_add(1))
            .read_to_end(&mut decoded)
            .map_err(damaged)?;
        if decoded.len() as u64 > limit {
            return Err(DecodeError::TooLarge { limit });
        }
        Ok(Bytes::from(decoded))
    }
}

/// Decodes a copy of an answer as it passes. A damaged answer ends the copy,
/// never the answer.
pub(super) struct Tap {
    decoder: Option<Box<dyn Decode>>,
}

trait Decode: Send + Sync {
    fn push(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>>;
}

/// Most bytes that one chunk of an answer may decode to.
const TAP_CHUNK_MAX: usize = 8 * 1024 * 1024;

/// A writer-side decoder whose output is taken after each chunk.
struct Writer<W> {
    inner: W,
    take: fn(&mut W) -> &mut Bounded,
}

/// Takes what a decoder writes, up to a bound.
#[derive(Default)]
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > TAP_CHUNK_MAX {
            return Err(io::Error::other("one chunk decodes to more than 8 MiB"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write + Send + Sync> Decode for Writer<W> {
    fn push(&mut self, chunk: &[u8]) -> io::Result<Vec<u8>> {
        self.inner.write_all(chunk)?;
        self.inner.flush()?;
        Ok(std::mem::take(&mut (self.take)(&mut self.inner).0))
    }
}

impl Tap {
    /// A decoder for `coding`; `None` if the bytes need none.
    pub(super) fn new(coding: Coding) -> Option<Tap> {
        let decoder: Box<dyn Decode> = match coding {
            Coding::Identity => return None,
            Coding::Gzip => Box::new(Writer {
                inner: flate2::write::MultiGzDecoder::new(Bounded::default()),
                take: |decoder| decoder.get_mut(),
            }),
            Coding::Brotli => Box::new(Writer {
                inner: brotli::DecompressorWriter::new(Bounded::default(), 4096),
                take: |decoder| decoder.get_mut(),
            }),
            Coding::Zstd => Box::new(Writer {
                inner: zstd::stream::write::Decoder::new(Bounded::default()).ok()?,
                take: |decoder| decoder.get_mut(),
            }),
        };
        Some(Tap {
            decoder: Some(decoder),
        })
    }

    /// Whether everything so far could be decoded.
    pub(super) fn is_sound(&self) -> bool {
        self.decoder.is_some()
    }

    /// The decoded form of the next chunk.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Bytes {
        match self.decoder.as_mut().map(|decoder| decoder.push(chunk)) {
            Some(Ok(decoded)) => Bytes::from(decoded),
            Some(Err(error)) => {
                tracing::debug!(%error, "an answer's content coding is damaged; it is not metered further");
                self.decoder = None;
                Bytes::new()
            }
            None => Bytes::new(),
        }
    }
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(coding: Coding, plain: &[u8]) -> Bytes {
        let mut out = Vec::new();
        match coding {
            Coding::Identity => out.extend_from_slice(plain),
            Coding::Gzip => {
                let mut writer =
                    flate2::write::GzEncoder::new(&mut out, flate2::Compression::fast());
                writer.write_all(plain).unwrap();
                writer.finish().unwrap();
            }
            Coding::Brotli => {
                let mut writer = brotli::CompressorWriter::new(&mut out, 4096, 4, 20);
                writer.write_all(plain).unwrap();
            }
            Coding::Zstd => out = zstd::stream::encode_all(plain, 1).unwrap(),
        }
        Bytes::from(out)
    }

    const ALL: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Brotli, Coding::Zstd];

    #[test]
    fn decodes_what_was_encoded() {
        let plain = b"{\"model\":\"m\"}".repeat(500);
        for coding in ALL {
            let body = encode(coding, &plain);
            assert_eq!(coding.decode(&body, 1 << 20).unwrap(), plain, "{coding:?}");
        }
    }

    #[test]
    fn a_bomb_stops_at_the_limit() {
        let plain = vec![b' '; 1 << 20];
        for coding in &ALL[1..] {
            let body = encode(*coding, &plain);
            assert!(body.len() < 20_000);
            assert!(matches!(
                coding.decode(&body, 1000),
                Err(DecodeError::TooLarge { limit: 1000 })
            ));
            assert!(coding.decode(&body, 1 << 20).is_ok(), "exactly full passes");
        }
    }

    #[test]
    fn damage_is_an_error() {
        for coding in &ALL[1..] {
            let body = Bytes::from_static(b"not compressed at all");
            assert!(matches!(
                coding.decode(&body, 1000),
                Err(DecodeError::Damaged { .. })
            ));
        }
    }

    #[test]
    fn a_tap_decodes_piece_by_piece() {
        let plain = b"data: {\"a\":1}\n\n".repeat(40);
        for coding in &ALL[1..] {
            let mut tap = Tap::new(*coding).unwrap();
            let mut got = Vec::new();
            for chunk in encode(*coding, &plain).chunks(7) {
                got.extend_from_slice(&tap.push(chunk));
            }
            assert_eq!(got, plain, "{coding:?}");
        }
        assert!(Tap::new(Coding::Identity).is_none());
    }

    #[test]
    fn names() {
        assert_eq!(Coding::parse(None), Some(Coding::Identity));
        assert_eq!(Coding::parse(Some(b" GZIP ")), Some(Coding::Gzip));
        assert_eq!(Coding::parse(Some(b"gzip, br")), None);
        assert_eq!(Coding::parse(Some(b"lzma")), None);
    }
}
