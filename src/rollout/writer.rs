//! The journal's own thread: the only place that waits for the disk.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc::UnboundedSender;

use crate::private::Folder;

/// What the thread is told to do, in order.
#[derive(Debug)]
pub enum Order {
    /// Append these lines.
    Append(Vec<u8>),
    /// Make everything so far durable and confirm it by this number.
    Sync(u64),
    /// Begin a new file with these lines, and keep the old one beside it.
    Rotate(Vec<u8>),
    /// Make everything durable, leave the file to another process and confirm it by this number.
    /// The next order takes it back.
    Release(u64),
}

/// Whether everything up to a number is durable. At most one is under way per raise, so the
/// channel needs no bound of its own.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The number of the [`Order::Sync`].
    pub id: u64,
    /// Whether it is.
    pub is_durable: bool,
}

/// What keeps the journal from being written; `None` while all is well.
pub type Fault = Arc<Mutex<Option<String>>>;

/// The file as the thread has it.
pub struct Writer {
    directory: PathBuf,
    file: File,
    /// Bytes that are whole lines.
    whole_bytes: u64,
    fault: Fault,
    /// Something since the last sync could not be written.
    has_lost: bool,
    /// The file may be another process's.
    is_released: bool,
}

/// The journal's name in its directory.
pub const FILE: &str = "journal.jsonl";
/// The one before it.
pub const OLD_FILE: &str = "journal.1.jsonl";
const NEXT_FILE: &str = "journal.next.jsonl";
/// All that is kept in the directory: these, and the secret that signs cookies.
const FILES: [&str; 4] = [FILE, OLD_FILE, NEXT_FILE, "sticky.secret"];

/// Opens the journal in `directory` for this process alone.
///
/// # Errors
/// When it cannot be created, or another process has it.
pub fn open(directory: &Path) -> io::Result<File> {
    let folder = Folder::open(directory, &FILES)?;
    folder.close_to_others(OLD_FILE);
    let file = folder.file(FILE, false)?;
    file.try_lock().map_err(|_| {
        io::Error::new(io::ErrorKind::WouldBlock, "another process writes it; give each its own")
    })?;
    Ok(file)
}

impl Writer {
    /// A writer of `file`, whose first `whole_bytes` bytes are whole lines; the rest is cut off.
    ///
    /// # Errors
    /// When it cannot be cut.
    pub fn new(directory: &Path, file: File, whole_bytes: u64, fault: Fault) -> io::Result<Self> {
        file.set_len(whole_bytes)?;
        let directory = directory.to_owned();
        Ok(Self { directory, file, whole_bytes, fault, has_lost: false, is_released: false })
    }

    /// Follows orders until nobody gives any more.
    pub fn run(mut self, orders: &Receiver<Order>, acks: &UnboundedSender<Ack>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Append(lines) => {
                    let result = self.take_back().and_then(|()| self.append(&lines));
                    self.note(&result);
                }
                Order::Sync(id) => {
                    let result = self.take_back().and_then(|()| self.file.sync_data());
                    let is_durable = self.note(&result) && !std::mem::take(&mut self.has_lost);
                    // Nobody waits any more when the process ends.
                    let _ = acks.send(Ack { id, is_durable });
                }
                Order::Rotate(head) => {
                    let result = self.take_back().and_then(|()| self.rotate(&head));
                    self.note(&result);
                }
                Order::Release(id) => {
                    let result = self.file.sync_data().and_then(|()| self.file.unlock());
                    let is_durable = self.note(&result);
                    self.is_released |= is_durable;
                    let _ = acks.send(Ack { id, is_durable });
                }
            }
        }
    }

    /// Takes the file back that was left to another process: whatever that has written stays.
    fn take_back(&mut self) -> io::Result<()> {
        if !self.is_released {
            return Ok(());
        }
        let file = open(&self.directory)?;
        let mut bytes = Vec::new();
        (&file).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        file.set_len(whole as u64)?;
        (self.file, self.whole_bytes, self.is_released) = (file, whole as u64, false);
        Ok(())
    }

    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(lines);
        if written.is_ok() {
            self.whole_bytes += lines.len() as u64;
            return Ok(());
        }
        self.has_lost = true;
        // Half a line must not become the head of the next one.
        self.file.set_len(self.whole_bytes)?;
        self.file.seek(SeekFrom::End(0))?;
        written
    }

    /// The new file is whole and durable before it takes the name; there is one at any moment.
    fn rotate(&mut self, head: &[u8]) -> io::Result<()> {
        let folder = Folder::open(&self.directory, &FILES)?;
        let _ = folder.remove(NEXT_FILE);
        let mut file = folder.file(NEXT_FILE, true)?;
        file.try_lock().map_err(io::Error::other)?;
        file.write_all(head)?;
        file.sync_all()?;
        let _ = folder.remove(OLD_FILE);
        folder.link(FILE, OLD_FILE)?;
        folder.rename(NEXT_FILE, FILE)?;
        folder.sync()?;
        self.file = file;
        self.whole_bytes = head.len() as u64;
        Ok(())
    }

    fn note(&mut self, result: &io::Result<()>) -> bool {
        let fault = result.as_ref().err().map(ToString::to_string);
        let mut known = self.fault.lock().expect("no panic while held");
        if let (Some(fault), None) = (&fault, &*known) {
            tracing::error!(%fault, "the journal cannot be written: nothing rises until it can");
        }
        *known = fault;
        result.is_ok()
    }
}
