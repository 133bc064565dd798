//! Notices that the configuration file may have changed.
//!
//! The directory is watched, not the file: editors rename a new file over the old one, and a
//! ConfigMap swaps a symlink next to it. Whatever happens there, the content decides.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc::{Receiver, channel};

/// How long a burst of events is waited for: an editor writes, renames and sets times.
const SETTLE: Duration = Duration::from_millis(50);
/// How often the content is looked at without any event: network file systems send none.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Watches the directory of one file.
#[derive(Debug)]
pub struct Watch {
    changes: Receiver<()>,
}

/// What the watching task has.
struct Events {
    /// Events stop when it is dropped.
    _watcher: Option<RecommendedWatcher>,
    events: Receiver<()>,
}

impl Watch {
    /// Starts to watch. Without events (no inotify left, say) the file is looked at every 5 s.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        // One waiting event is enough to look again; more would say nothing new.
        let (sender, events) = channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        });
        let directory = directory(file);
        let watching = watcher.and_then(|mut watcher| {
            watcher.watch(&directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watching {
            tracing::warn!(%error, directory = %directory.display(), "no file events; polling");
        }
        let mut events = Events { _watcher: watching.ok(), events };
        let (changed, changes) = channel(1);
        // A task of its own, so that whoever waits may stop waiting without losing anything.
        tokio::spawn(async move {
            while !changed.is_closed() {
                events.next().await;
                // A change that nobody has looked at yet covers this one too.
                let _ = changed.try_send(());
            }
        });
        Self { changes }
    }

    /// Resolves when the file may have changed. Safe to be dropped while it waits.
    pub async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

impl Events {
    async fn next(&mut self) {
        tokio::select! {
            Some(()) = self.events.recv() => {
                tokio::time::sleep(SETTLE).await;
                // What came meanwhile is seen by the same look.
                let _ = self.events.try_recv();
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
