//! The admin API's own socket: a file whose permissions say who may act.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener as StdUnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tokio::net::UnixListener;

/// Only the user that the gateway runs as, and root.
const MODE: u32 = 0o600;
/// Connections that wait to be accepted, as the standard library has it.
const BACKLOG: i32 = 128;

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
    // One that a crash left has our pid again where pids are few.
    let _ = std::fs::remove_file(fresh);
    let listener = bind_closed(fresh)?;
    std::fs::set_permissions(fresh, std::fs::Permissions::from_mode(MODE))?;
    let found = std::fs::symlink_metadata(fresh)?;
    std::fs::rename(fresh, path)?;
    listener.set_nonblocking(true)?;
    let file = SocketFile { path: path.to_owned(), identity: (found.dev(), found.ino()) };
    Ok((UnixListener::from_std(listener)?, file))
}

/// Listens at `path`, which nobody else can open at any moment. The file that `bind` makes has the
/// mode of the socket, less the umask; where a kernel does not hold to that, the mode follows.
fn bind_closed(path: &Path) -> anyhow::Result<StdUnixListener> {
    let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None)?;
    let _ = rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(MODE));
    socket.bind(&socket2::SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    Ok(std::os::fd::OwnedFd::from(socket).into())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_socket_is_closed_from_its_first_moment() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let _listener = bind_closed(&path).unwrap();
        // Nothing has changed the mode since the file was made.
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().mode() & 0o777, MODE);
        assert!(UnixStream::connect(&path).is_ok());
    }
}
