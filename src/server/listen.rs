//! Listening sockets, and the file descriptors that connections need.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4_096;

/// Listens on `address`. One socket serves all workers: several by `SO_REUSEPORT` would spread
/// connections unevenly and lose the queue of one that closes.
///
/// # Errors
/// The socket's: the address is in use, say, or not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last life's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Raises the limit of open files to what the system allows and returns it.
#[must_use]
pub fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Refused, the old limit serves; accepting pauses when it is reached.
    let raised = setrlimit(Resource::Nofile, raised).map_or(limit, |()| raised);
    raised.current
}
