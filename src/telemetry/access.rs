//! The access log: a line per request, written by a thread of its own.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use crate::calendar::wall_ms;

use super::Facts;
use super::format::AccessFormat;

/// Lines that wait for the writer; a full queue drops and counts, it never blocks a worker.
const QUEUE_MAX: usize = 8_192;

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
pub struct AccessLog(SyncSender<AccessLine>);

impl AccessLog {
    /// A log whose lines a thread of its own writes to standard output.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_MAX);
        let write = move || write_lines(&receiver, &mut std::io::stdout());
        std::thread::Builder::new().name("access-log".into()).spawn(write)?;
        Ok(Self(sender))
    }

    /// Hands a line over; false when the queue is full or the writer gone, and the line lost.
    #[must_use]
    pub fn send(&self, mut line: AccessLine) -> bool {
        line.facts.time_ms = wall_ms();
        match self.0.try_send(line) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => false,
        }
    }
}

/// Writes line after line, in batches while lines wait, until no sender is left or nobody reads any
/// more. What a full disk has no room for is lost; with room again the log goes on.
fn write_lines(receiver: &Receiver<AccessLine>, output: &mut impl Write) {
    let mut batch = Vec::new();
    let mut is_torn = false;
    while let Ok(first) = receiver.recv() {
        batch.clear();
        if is_torn {
            // A part of a line may have been written: only that one is spoilt.
            batch.push(b'\n');
        }
        for line in std::iter::once(first).chain(receiver.try_iter().take(QUEUE_MAX)) {
            line.format.write(&line, &mut batch);
            batch.push(b'\n');
        }
        let written = output.write_all(&batch).and_then(|()| output.flush());
        if written.as_ref().is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            return;
        }
        is_torn = written.is_err();
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
        let (sender, receiver) = sync_channel(2);
        let log = AccessLog(sender);
        assert!(log.send(line("/")));
        assert!(log.send(line("/\n\"\u{9b}31m\u{2028}")));
        assert!(!log.send(line("/")));
        drop(log);
        let mut output = Vec::new();
        write_lines(&receiver, &mut output);
        let text = String::from_utf8(output).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[1]["path"], "/\n\"\u{9b}31m\u{2028}");
        assert!(text.is_ascii(), "{text}");
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
        let (sender, receiver) = sync_channel(2);
        let log = AccessLog(sender);
        assert!(log.send(line("/")));
        let mut output = Full { log: Some(log), written: Vec::new() };
        write_lines(&receiver, &mut output);
        let text = String::from_utf8(output.written).unwrap();
        let last: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["path"], "/after", "{text}");
    }
}
