//! The journal: an append-only file of JSON lines that outlives the process.
//!
//! A raise waits until the disk has it; a lowering never waits. All writing is done by a thread of
//! its own, so that a disk that hangs delays nothing but raises.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::record::{Record, Recovered, recover};
use super::writer::{Ack, Fault, Order, Writer, open};

/// Orders that wait for the disk: a minute and more of evidence of several services.
const ORDERS_MAX: usize = 4_096;
/// A file that grows past this is replaced; with the one before it that is the most on disk.
pub const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Largest journal that is read; a greater one was not written by us.
const READ_MAX: u64 = 4 * BYTES_MAX;

/// Where a rollout's state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In this directory.
    Directory(PathBuf),
    /// Nowhere: it is forgotten with the process.
    Memory,
}

/// The journal of a process.
#[derive(Debug)]
pub struct Journal {
    kind: Kind,
    acks: UnboundedReceiver<Ack>,
    synced: u64,
    bytes: u64,
}

#[derive(Debug)]
enum Kind {
    File { path: PathBuf, orders: SyncSender<Order>, fault: Fault },
    Memory { acks: tokio::sync::mpsc::UnboundedSender<Ack> },
    Broken { reason: String },
}

impl Journal {
    /// Opens the journal at `place` and reads it. One that cannot be opened is broken: nothing
    /// rises, and everybody is told why.
    #[must_use]
    pub fn open(place: &Place) -> (Self, Recovered) {
        let (sender, acks) = unbounded_channel();
        let directory = match place {
            Place::Memory => {
                let kind = Kind::Memory { acks: sender };
                return (Self { kind, acks, synced: 0, bytes: 0 }, Recovered::default());
            }
            Place::Directory(directory) => directory,
        };
        match start(directory, sender) {
            Ok((kind, recovered)) => {
                let bytes = recovered.whole_bytes as u64;
                (Self { kind, acks, synced: 0, bytes }, recovered)
            }
            Err(error) => {
                let reason = format!("{}: {error}", directory.display());
                tracing::error!(%reason, "no journal: nothing rises; set state.directory to a \
                    directory that can be written, or state: memory");
                let journal = Self { kind: Kind::Broken { reason }, acks, synced: 0, bytes: 0 };
                (journal, Recovered::default())
            }
        }
    }

    /// Appends a record, without waiting.
    pub fn append(&mut self, record: &Record) {
        if let Kind::File { orders, fault, .. } = &self.kind {
            let line = record.line();
            self.bytes += line.len() as u64;
            if orders.try_send(Order::Append(line)).is_err() {
                behind(fault);
            }
        }
    }

    /// Asks for everything so far to be made durable; the answer comes as an [`Ack`] with the
    /// number that is returned. `None` when it never will.
    pub fn sync(&mut self) -> Option<u64> {
        self.synced += 1;
        let id = self.synced;
        match &self.kind {
            Kind::Memory { acks } => acks.send(Ack { id, is_durable: true }).is_ok(),
            Kind::Broken { .. } => false,
            Kind::File { orders, fault, .. } => {
                let is_sent = orders.try_send(Order::Sync(id)).is_ok();
                if !is_sent {
                    behind(fault);
                }
                is_sent
            }
        }
        .then_some(id)
    }

    /// Leaves the journal to another process, until the next record; the answer comes as an [`Ack`]
    /// with the number that is returned. `None` when there is nothing to leave.
    pub fn release(&mut self) -> Option<u64> {
        let Kind::File { orders, .. } = &self.kind else { return None };
        self.synced += 1;
        let id = self.synced;
        // The writer is behind; its answer does not come, and whoever waits for it gives up.
        let _ = orders.try_send(Order::Release(id));
        Some(id)
    }

    /// The next answer.
    pub async fn ack(&mut self) -> Ack {
        match self.acks.recv().await {
            Some(ack) => ack,
            None => std::future::pending().await,
        }
    }

    /// Whether it is time for a new file.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// Begins a new file with `head`.
    pub fn rotate(&mut self, head: &[Record]) {
        if let Kind::File { orders, fault, .. } = &self.kind {
            let lines: Vec<u8> = head.iter().flat_map(Record::line).collect();
            self.bytes = lines.len() as u64;
            if orders.try_send(Order::Rotate(lines)).is_err() {
                behind(fault);
            }
        }
    }

    /// What keeps it from being written.
    ///
    /// # Panics
    /// When the writer's thread panicked.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        match &self.kind {
            Kind::Memory { .. } => None,
            Kind::Broken { reason } => Some(reason.clone()),
            Kind::File { path, fault, .. } => {
                let fault = fault.lock().expect("no panic while held");
                fault.as_ref().map(|fault| format!("{}: {fault}", path.display()))
            }
        }
    }

    /// Whether it outlives the process.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self.kind, Kind::Memory { .. })
    }
}

fn behind(fault: &Fault) {
    let mut fault = fault.lock().expect("no panic while held");
    fault.get_or_insert_with(|| "the disk is behind; records are dropped".into());
}

fn start(
    directory: &Path,
    acks: tokio::sync::mpsc::UnboundedSender<Ack>,
) -> std::io::Result<(Kind, Recovered)> {
    let file = open(directory)?;
    let mut bytes = Vec::new();
    (&file).take(READ_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > READ_MAX {
        return Err(std::io::Error::other("the journal is too large to be one of ours"));
    }
    let recovered = recover(&bytes);
    let torn = bytes.len() - recovered.whole_bytes;
    if torn > 0 {
        tracing::warn!(bytes = torn, "the journal's last line was torn; it is cut off");
    }
    if recovered.skipped > 0 {
        tracing::warn!(lines = recovered.skipped, "lines of the journal are not understood");
    }
    let fault = Arc::new(Mutex::new(None));
    let whole_bytes = recovered.whole_bytes as u64;
    let writer = Writer::new(directory, file, whole_bytes, Arc::clone(&fault))?;
    let (orders, received) = sync_channel(ORDERS_MAX);
    std::thread::Builder::new()
        .name("journal".into())
        .spawn(move || writer.run(&received, &acks))?;
    let path = directory.join(super::writer::FILE);
    Ok((Kind::File { path, orders, fault }, recovered))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::edit::Applied;
    use crate::rollout::record::{Entry, Stored};

    fn record(version: usize) -> Record {
        let applied = Applied {
            plan: None,
            stable: format!("v{version}"),
            canary: None,
            canary_endpoints: Vec::new(),
            weight: None,
        };
        let entry = Entry::Applied { at_ms: 1, applied: Box::new(applied) };
        Record { service: "api".into(), entry }
    }

    fn stable(recovered: &Recovered) -> String {
        recovered.services["api"].applied.as_ref().unwrap().stable.clone()
    }

    async fn synced(journal: &mut Journal) {
        let id = journal.sync().unwrap();
        let ack = journal.ack().await;
        assert_eq!((ack.id, ack.is_durable), (id, true));
    }

    #[tokio::test]
    async fn a_journal_is_repaired_continued_and_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Directory(folder.path().join("state"));
        let file = folder.path().join("state").join(crate::rollout::writer::FILE);
        let (mut journal, recovered) = Journal::open(&place);
        assert_eq!(recovered, Recovered::default());
        journal.append(&record(1));
        synced(&mut journal).await;
        assert!(Journal::open(&place).0.fault().unwrap().contains("another process"));
        drop(journal);
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, [&whole[..], b"{\"service\":\"api\",\"rec"].concat()).unwrap();
        // The writer's thread of the journal above lets go of the file in its own time.
        let (mut journal, recovered) = loop {
            let (journal, recovered) = Journal::open(&place);
            if journal.fault().is_none() {
                break (journal, recovered);
            }
            std::thread::yield_now();
        };
        assert_eq!(stable(&recovered), "v1");
        journal.append(&record(2));
        synced(&mut journal).await;
        assert_eq!(stable(&recover(&std::fs::read(&file).unwrap())), "v2");
        let stored = Stored::default();
        journal.rotate(&[stored.snapshot("api"), record(3)]);
        journal.append(&record(4));
        synced(&mut journal).await;
        let text = std::fs::read(&file).unwrap();
        assert_eq!(text.split(|byte| *byte == b'\n').count(), 4, "snapshot, v3, v4, the end");
        assert_eq!(stable(&recover(&text)), "v4");
        let old = std::fs::read(file.with_file_name(crate::rollout::writer::OLD_FILE)).unwrap();
        assert_eq!(stable(&recover(&old)), "v2");
    }

    #[tokio::test]
    async fn a_journal_is_left_to_another_and_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::Directory(folder.path().to_owned());
        let (mut journal, _) = Journal::open(&place);
        journal.append(&record(1));
        let id = journal.release().unwrap();
        let ack = journal.ack().await;
        assert_eq!((ack.id, ack.is_durable), (id, true));
        let (mut other, recovered) = Journal::open(&place);
        assert_eq!((other.fault(), stable(&recovered).as_str()), (None, "v1"));
        other.append(&record(2));
        synced(&mut other).await;
        let id = journal.sync().unwrap();
        let ack = journal.ack().await;
        assert_eq!((ack.id, ack.is_durable), (id, false), "the other one has it");
        let id = other.release().unwrap();
        assert_eq!(other.ack().await.id, id);
        journal.append(&record(3));
        synced(&mut journal).await;
        assert_eq!(journal.fault(), None);
        let bytes = std::fs::read(folder.path().join(crate::rollout::writer::FILE)).unwrap();
        assert_eq!(bytes.split(|byte| *byte == b'\n').count(), 4, "three lines, in their order");
        assert_eq!(stable(&recover(&bytes)), "v3");
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_written_says_so() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let place = Place::Directory(folder.path().join("file"));
        let (mut journal, _) = Journal::open(&place);
        assert!(journal.fault().is_some());
        assert_eq!(journal.sync(), None);
    }
}
