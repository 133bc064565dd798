//! The access log: a line per request, written by a thread of its own.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::calendar::wall_ms;

use super::Facts;
use super::format::AccessFormat;

/// Lines that wait for the writer; a full queue drops and counts, it never blocks a worker.
const QUEUE_MAX: usize = 8_192;
/// And what they hold: a thousand bytes each. Lines are as long as clients make them.
const QUEUE_BYTES_MAX: usize = QUEUE_MAX * 1_024;

/// From here on a batch is written.
const BATCH_BYTES: usize = 64 * 1024;

/// One request, for the access log.
#[derive(Debug)]
pub struct AccessLine {
    /// How it is written.
    pub format: Arc<AccessFormat>,
    /// What is known of it.
    pub facts: Facts,
    /// The fields of its head that the format wants, in that order; empty where it has none.
    pub fields: Vec<String>,
}

/// The workers' end of the access log; clones share the queue.
#[derive(Clone, Debug)]
pub struct AccessLog {
    lines: SyncSender<(AccessLine, usize)>,
    /// Bytes of the lines that wait. Every line takes the queue's lock anyway.
    held: Arc<AtomicUsize>,
}

impl AccessLog {
    /// A log whose lines a thread of its own writes to standard output.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (log, receiver) = Self::queue(QUEUE_MAX);
        let held = Arc::clone(&log.held);
        let write = move || write_lines(&receiver, &held, &mut std::io::stdout());
        std::thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(log)
    }

    fn queue(most: usize) -> (Self, Receiver<(AccessLine, usize)>) {
        let (lines, receiver) = sync_channel(most);
        (Self { lines, held: Arc::default() }, receiver)
    }

    /// Hands a line over; false when the queue is full or the writer gone, and the line lost.
    #[must_use]
    pub fn send(&self, mut line: AccessLine) -> bool {
        line.facts.time_ms = wall_ms();
        let bytes = line.bytes();
        // Workers that come at the same time may each take it a line too far.
        if self.held.load(Ordering::Relaxed) + bytes > QUEUE_BYTES_MAX {
            return false;
        }
        self.held.fetch_add(bytes, Ordering::Relaxed);
        match self.lines.try_send((line, bytes)) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.held.fetch_sub(bytes, Ordering::Relaxed);
                false
            }
        }
    }
}

impl AccessLine {
    /// What it holds, in bytes.
    fn bytes(&self) -> usize {
        let Facts { method, host, path, service, track, .. } = &self.facts;
        let facts = [method, host, path, service, track].into_iter();
        let text: usize = facts.chain(&self.fields).map(String::capacity).sum();
        size_of::<Self>() + text + self.fields.len() * size_of::<String>()
    }
}

/// Writes line after line, in batches while lines wait, until no sender is left or nobody reads any
/// more. What a full disk has no room for is lost; with room again the log goes on.
fn write_lines(
    receiver: &Receiver<(AccessLine, usize)>,
    held: &AtomicUsize,
    output: &mut impl Write,
) {
    let mut batch = Vec::new();
    let mut is_torn = false;
    while let Ok(first) = receiver.recv() {
        batch.clear();
        if is_torn {
            // A part of a line may have been written: only that one is spoilt.
            batch.push(b'\n');
        }
        let mut next = Some(first);
        while let Some((line, bytes)) = next {
            line.format.write(&line, &mut batch);
            batch.push(b'\n');
            held.fetch_sub(bytes, Ordering::Relaxed);
            // A batch of its own holds what the queue has given up.
            next = if batch.len() < BATCH_BYTES { receiver.try_recv().ok() } else { None };
        }
        let written = output.write_all(&batch).and_then(|()| output.flush());
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            return;
        }
        is_torn = written.is_err();
        batch.shrink_to(BATCH_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(path: &str) -> AccessLine {
        let facts = Facts { path: path.into(), ..Facts::default() };
        AccessLine { format: Arc::default(), facts, fields: Vec::new() }
    }

    #[test]
    fn a_full_queue_drops_and_says_so() {
        let (log, receiver) = AccessLog::queue(2);
        let held = Arc::clone(&log.held);
        assert!(log.send(line("/")));
        assert!(log.send(line("/\n\"\u{9b}31m\u{2028}")));
        assert!(!log.send(line("/")));
        drop(log);
        let mut output = Vec::new();
        write_lines(&receiver, &held, &mut output);
        assert_eq!(held.load(Ordering::Relaxed), 0);
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["path"], "/\n\"\u{9b}31m\u{2028}");
        assert!(text.is_ascii(), "{text}");
    }

    #[test]
    fn the_queue_is_bounded_by_what_its_lines_hold() {
        let (log, receiver) = AccessLog::queue(QUEUE_MAX);
        let long = "/".repeat(60_000);
        let taken = (0..1_000).take_while(|_| log.send(line(&long))).count();
        let most = QUEUE_BYTES_MAX / 60_000;
        assert!((most - 2..=most).contains(&taken), "{taken}");
        let _ = receiver.recv().map(|(_, bytes)| log.held.fetch_sub(bytes, Ordering::Relaxed));
        assert!(log.send(line(&long)), "there is room again");
    }

    /// A disk that is full for one write; the next line comes after that.
    struct Full {
        log: Option<AccessLog>,
        written: Vec<u8>,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if let Some(log) = self.log.take() {
                self.written.extend_from_slice(&bytes[..5]);
                assert!(log.send(line("/after")));
                return Err(ErrorKind::StorageFull.into());
            }
            self.written.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_disk_with_room_again_gets_whole_lines_again() {
        let (log, receiver) = AccessLog::queue(2);
        let held = Arc::clone(&log.held);
        assert!(log.send(line("/")));
        let mut output = Full { log: Some(log), written: Vec::new() };
        write_lines(&receiver, &held, &mut output);
        let text = String::from_utf8(output.written).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["path"], "/after", "{text}");
    }
}
