//! The admin API's own socket: a file whose permissions say who may act.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::net::UnixListener;

/// Only the user that the gateway runs as, and root.
const MODE: u32 = 0o600;

/// A socket file, removed with this value unless a successor has put its own in place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode: what tells it from a successor's.
    identity: (u64, u64),
}

/// Listens at `path`. The file is put in place at once, so that there is always one to connect to:
/// a predecessor's that handed over, or one that a crash has left, is replaced.
///
/// # Errors
/// When another gateway answers there, the path is no socket, or it cannot be written.
pub(super) fn bind(path: &Path, takes_over: bool) -> anyhow::Result<(UnixListener, SocketFile)> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        let name = path.display();
        anyhow::ensure!(
            found.file_type().is_socket(),
            "admin.socket: {name} is there and is no socket; name another path, or remove it"
        );
        anyhow::ensure!(
            takes_over || UnixStream::connect(path).is_err(),
            "admin.socket: another program answers at {name}; is the gateway running already?"
        );
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(format!(".{}", std::process::id()));
    let fresh = PathBuf::from(fresh);
    let bound = put_in_place(&fresh, path);
    if bound.is_err() {
        // What could not be made need not be removed.
        let _ = std::fs::remove_file(&fresh);
    }
    bound.with_context(|| format!("admin.socket: cannot listen at {}", path.display()))
}

fn put_in_place(fresh: &Path, path: &Path) -> anyhow::Result<(UnixListener, SocketFile)> {
    let listener = StdUnixListener::bind(fresh)?;
    std::fs::set_permissions(fresh, std::fs::Permissions::from_mode(MODE))?;
    let found = std::fs::symlink_metadata(fresh)?;
    std::fs::rename(fresh, path)?;
    listener.set_nonblocking(true)?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()) };
    Ok((UnixListener::from_std(listener)?, file))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let found = std::fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.identity) {
            // A file that stays is replaced by the next gateway.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
