//! The queue between whoever logs and standard output.
//!
//! A pipe whose reader stalls would otherwise stop every request at its next
//! log line. The queue is bounded in lines and in bytes; what does not fit is
//! dropped and counted. Owns the thread "tyr-log". Failure answer: lines that
//! cannot be written are counted as dropped, the process goes on.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Most lines that wait to be written.
const MAX_LINES: usize = 8_192;
/// Most bytes that wait to be written.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long the end of the process waits for a reader that stalls.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Process-wide, as standard output is.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Log lines dropped since the start of the process.
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

enum Message {
    Line(Vec<u8>),
    /// Everything before it has been written; the sender is told so.
    Flush(SyncSender<()>),
}

/// The entrance of the queue; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct LineQueue {
    lines: SyncSender<Message>,
    waiting_bytes: Arc<AtomicUsize>,
}

/// Writes what is still queued when dropped, for at most two seconds.
#[derive(Debug)]
#[must_use = "dropping the guard at once ends the promise to write the last lines"]
pub struct LogGuard {
    lines: SyncSender<Message>,
}

/// Starts the thread that writes to `output`.
pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<(LineQueue, LogGuard)> {
    let (lines, queued) = sync_channel(MAX_LINES);
    let waiting_bytes = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&waiting_bytes);
    std::thread::Builder::new()
        .name("tyr-log".to_owned())
        .spawn(move || write_lines(&queued, output, &taken))?;
    let guard = LogGuard {
        lines: lines.clone(),
    };
    let queue = LineQueue {
        lines,
        waiting_bytes,
    };
    Ok((queue, guard))
}

fn write_lines(queued: &Receiver<Message>, output: impl Write, waiting_bytes: &AtomicUsize) {
    let mut output = io::BufWriter::with_capacity(64 * 1024, output);
    while let Ok(mut message) = queued.recv() {
        loop {
            match message {
                Message::Line(line) => {
                    waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
                    if output.write_all(&line).is_err() {
                        DROPPED.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Message::Flush(done) => {
                    let _ = output.flush();
                    let _ = done.try_send(());
                }
            }
            match queued.try_recv() {
                Ok(next) => message = next,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        // Only when nothing waits: lines under load go out in large writes.
        let _ = output.flush();
    }
}

impl Write for LineQueue {
    /// Takes one whole line; the subscriber formats an event before it writes.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let waiting = self.waiting_bytes.fetch_add(line.len(), Ordering::Relaxed);
        let fits = waiting + line.len() <= MAX_BYTES
            && self.lines.try_send(Message::Line(line.to_vec())).is_ok();
        if !fits {
            self.waiting_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = LineQueue;

    fn make_writer(&'a self) -> LineQueue {
        self.clone()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, finished) = sync_channel(1);
        // A full queue means a stalled reader: then there is nothing to wait for.
        if self.lines.try_send(Message::Flush(done)).is_ok() {
            let _ = finished.recv_timeout(FLUSH_PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic holds it").extend(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_guard_writes_what_is_queued() {
        let sink = Sink::default();
        let (mut queue, guard) = start(sink.clone()).expect("a thread");
        for n in 0..100 {
            writeln!(queue.make_writer(), "line {n}").expect("never fails");
        }
        queue.flush().expect("never fails");
        drop(guard);
        let written = sink.0.lock().expect("no panic holds it").clone();
        let text = String::from_utf8(written).expect("text");
        assert_eq!(text.lines().count(), 100);
        assert_eq!(text.lines().last(), Some("line 99"));
    }

    /// Blocks in its first write until told to go on.
    struct Stalled(Receiver<()>);

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_never_blocks() {
        let (go_on, wait) = sync_channel(1);
        let (mut queue, guard) = start(Stalled(wait)).expect("a thread");
        let before = dropped_lines();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..64 {
            queue.write_all(&line).expect("never fails");
        }
        assert!(dropped_lines() - before >= 64 - 2 * 8 - 1);
        drop(go_on);
        drop(guard);
    }
}
