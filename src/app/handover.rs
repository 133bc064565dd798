//! Listening sockets that come from elsewhere, and handing them to a successor: a new binary takes
//! over without a connection lost, because the socket itself goes on and with it its queue.
//!
//! Sockets come the way systemd passes them (`LISTEN_FDS`), readiness is told the way it listens
//! (`NOTIFY_SOCKET`), so both work under systemd too.

use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::private;

use super::own_secret;

/// The addresses in the file that the passed sockets are for, in their order; a successor's only.
const ADDRESSES: &str = "SPLITWAY_LISTEN_ADDRESSES";
/// Where the service manager listens, systemd for one.
const MANAGER: &str = "NOTIFY_SOCKET";
/// Where a successor tells that it is ready. Not `NOTIFY_SOCKET`: the service manager's stays known.
const READINESS: &str = "SPLITWAY_READY_SOCKET";
/// Where passed descriptors are put: beyond anything that a process has open at its start.
const FIRST_FD: i32 = 500;
/// How long a successor may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Sockets that were passed to this process.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// Takes what the environment says was passed.
    pub(super) fn take() -> Result<Self> {
        let named = std::env::var(ADDRESSES).unwrap_or_default();
        let mut named = named.split(',').map(str::parse::<SocketAddr>);
        let mut passed = listenfd::ListenFd::from_env();
        let mut found = Vec::new();
        for position in 0..passed.len() {
            let Some(socket) = passed.take_tcp_listener(position)? else { continue };
            socket.set_nonblocking(true)?;
            let address = match named.next() {
                Some(Ok(address)) => address,
                _ => socket.local_addr()?,
            };
            found.push((address, socket));
        }
        Ok(Self(found))
    }

    /// The socket for `address`, if it was passed.
    pub(super) fn socket(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let position = self.0.iter().position(|(of, _)| *of == address)?;
        Some(self.0.remove(position).1)
    }
}

/// Whether this process was started to take over from one that lives yet.
pub(super) fn has_predecessor() -> bool {
    std::env::var_os(READINESS).is_some()
}

/// Where a predecessor has left what only its successor may read.
pub(super) fn passed_folder() -> Option<PathBuf> {
    let readiness = PathBuf::from(std::env::var_os(READINESS)?);
    readiness.parent().map(PathBuf::from)
}

/// Tells whoever started this process that it is ready.
pub(super) fn tell_ready() {
    let asked = if std::env::var_os(READINESS).is_some() { READINESS } else { MANAGER };
    tell(asked, "READY=1\n");
}

/// Tells the service manager which process it should look after from now on.
pub(super) fn tell_successor(pid: u32) {
    tell(MANAGER, &format!("MAINPID={pid}\n"));
}

fn tell(variable: &str, text: &str) {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else { return };
    let told = StdUnixDatagram::unbound().and_then(|socket| socket.send_to(text.as_bytes(), path));
    if let Err(error) = told {
        tracing::warn!(%error, variable, "nobody could be told of the readiness");
    }
}

/// What a child finds its sockets by.
type Variables = [(&'static str, OsString); 4];

/// The sockets of this process, kept for a successor; dropped when there is none.
#[derive(Debug)]
pub(super) struct Sockets(pub(super) Vec<(SocketAddr, TcpListener)>);

impl Sockets {
    /// Starts this program anew, as it was called, with the same sockets, and waits until it is
    /// ready. Returns its pid.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time; nothing has changed then.
    pub(super) async fn hand_over(&self, secret: Option<&[u8]>) -> Result<u32> {
        let folder = private::fresh_folder(&private::runtime_parent())?;
        if let Some(secret) = secret {
            own_secret::pass(&folder, secret)?;
        }
        let result = self.start_successor(&folder).await;
        // A socket is in it, and what the successor has read by now.
        let _ = std::fs::remove_dir_all(&folder);
        result
    }

    async fn start_successor(&self, folder: &std::path::Path) -> Result<u32> {
        let path = folder.join("ready");
        let readiness = UnixDatagram::bind(&path)?;
        let (_kept, variables) = self.pass()?;
        let mut arguments = std::env::args_os();
        let _name = arguments.next();
        let mut child = Command::new(program()?)
            .args(arguments)
            .envs(variables)
            .env(READINESS, &path)
            .stdin(Stdio::null())
            .spawn()
            .map(Successor)?;
        let pid = child.0.id().ok_or_else(|| Error::from(ErrorKind::NotFound))?;
        let mut message = [0; 256];
        tokio::select! {
            ended = child.0.wait() => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                return Err(Error::other(format!("it ended before it was ready ({how}); see its log")));
            }
            told = readiness.recv(&mut message) => told?,
            () = tokio::time::sleep(READY_TIMEOUT) => return Err(ErrorKind::TimedOut.into()),
        };
        // It lives on; only its pid matters from here.
        std::mem::forget(child);
        Ok(pid)
    }

    /// Duplicates every socket to a place where a child finds it.
    fn pass(&self) -> Result<(Vec<OwnedFd>, Variables)> {
        let mut passed = Vec::new();
        let mut first = FIRST_FD;
        for (_, socket) in &self.0 {
            let place = fcntl_dupfd_cloexec(socket.as_fd(), first)?;
            if passed.is_empty() {
                first = place.as_raw_fd();
            }
            first += 1;
            passed.push(place);
        }
        let numbers: Vec<i32> = passed.iter().map(AsRawFd::as_raw_fd).collect();
        if numbers.windows(2).any(|pair| pair[1] != pair[0] + 1) {
            return Err(Error::other("no row of free descriptors for the sockets"));
        }
        for place in &passed {
            fcntl_setfd(place, FdFlags::empty())?;
        }
        let addresses: Vec<String> = self.0.iter().map(|(of, _)| of.to_string()).collect();
        let variables = [
            ("LISTEN_FDS", passed.len().to_string().into()),
            (
                "LISTEN_FDS_FIRST_FD",
                numbers.first().copied().unwrap_or(FIRST_FD).to_string().into(),
            ),
            ("LISTEN_PID", OsString::new()),
            (ADDRESSES, addresses.join(",").into()),
        ];
        Ok((passed, variables))
    }
}

/// A successor that is not ready yet: it must not serve beside us, or outlive us, unless it is.
struct Successor(Child);

impl Drop for Successor {
    fn drop(&mut self) {
        // Fails where it has ended by itself.
        let _ = self.0.start_kill();
    }
}

/// Where this program was started from: the new binary, if it was replaced.
fn program() -> Result<PathBuf> {
    let path = std::env::current_exe()?;
    // Linux tells of a replaced file by this ending.
    let text = path.to_string_lossy().into_owned();
    Ok(text.strip_suffix(" (deleted)").map_or(path, PathBuf::from))
}
