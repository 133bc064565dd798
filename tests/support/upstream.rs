//! Servers behind the gateway: plain ones, and ones that do exactly what a script says.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{Client, PATIENCE};

/// A listening server; it stops accepting when dropped.
pub struct Upstream {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
    /// Everything read, in order of arrival.
    bytes: Mutex<Vec<u8>>,
    /// Second handles of the open connections, by their number.
    open: Mutex<HashMap<usize, TcpStream>>,
}

/// One connection of a scripted server.
pub struct Session {
    client: Client,
    state: Arc<State>,
    /// Which connection of the server this is, from 0.
    pub number: usize,
}

impl Upstream {
    /// A server that answers every request with its track's name in `x-track`.
    pub fn track(track: &'static str) -> Self {
        Self::scripted(move |session| {
            while let Some(request) = session.request() {
                let body = if request.starts_with("HEAD") { "" } else { track };
                session.send(format!(
                    "HTTP/1.1 200 OK\r\nx-track: {track}\r\ncontent-length: {}\r\n\r\n{body}",
                    track.len()
                ));
            }
        })
    }

    /// A server that runs `script` on a thread for every connection.
    pub fn scripted(script: impl Fn(&mut Session) + Send + Sync + 'static) -> Self {
        Self::scripted_on(TcpListener::bind("127.0.0.1:0").unwrap(), script)
    }

    /// The same on a socket that is already there.
    pub fn scripted_on(
        listener: TcpListener,
        script: impl Fn(&mut Session) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let (accepting, script) = (Arc::clone(&state), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = accepting.connections.fetch_add(1, Ordering::SeqCst);
                let second = stream.try_clone().unwrap();
                accepting.open.lock().unwrap().insert(number, second);
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let client = Client { stream, held: Vec::new() };
                let mut session = Session { client, state: Arc::clone(&accepting), number };
                let script = Arc::clone(&script);
                std::thread::spawn(move || {
                    script(&mut session);
                    // The last handle closes the connection.
                    session.state.open.lock().unwrap().remove(&number);
                });
            }
        });
        Self { address, state }
    }

    /// An address where nobody listens.
    pub fn refusing() -> SocketAddr {
        Self::apart().local_addr().unwrap()
    }

    /// A listener whose port stays free when it is gone: tests run side by side and take every free
    /// port of 127.0.0.1, but none of this address.
    pub fn apart() -> TcpListener {
        TcpListener::bind("127.0.0.80:0").unwrap()
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Whole heads read so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Everything read so far.
    pub fn bytes(&self) -> Vec<u8> {
        self.state.bytes.lock().unwrap().clone()
    }

    /// Closes every connection that is open now.
    pub fn close_connections(&self) {
        for stream in self.state.open.lock().unwrap().values() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // A connection of our own wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        self.close_connections();
    }
}

impl Session {
    /// The next request's head; `None` at the end of the stream.
    pub fn request(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.client.held.windows(4).position(|four| four == b"\r\n\r\n") {
                self.state.requests.fetch_add(1, Ordering::SeqCst);
                let head: Vec<u8> = self.client.held.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if self.read_some() == 0 {
                return None;
            }
        }
    }

    /// The next line, without its end.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.client.held.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.client.held.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.read_some() > 0, "closed within a line");
        }
    }

    /// Exactly `count` bytes of a body.
    pub fn body(&mut self, count: usize) -> Vec<u8> {
        while self.client.held.len() < count {
            assert!(self.read_some() > 0, "closed within a body");
        }
        self.client.held.drain(..count).collect()
    }

    /// Reads and drops `count` bytes, in bounded memory.
    pub fn skip(&mut self, count: u64) {
        let mut left = count - std::mem::take(&mut self.client.held).len() as u64;
        let mut buffer = vec![0; 256 * 1024];
        while left > 0 {
            let read = self.client.stream.read(&mut buffer).unwrap();
            assert!(read > 0, "closed within a body");
            left -= read as u64;
        }
    }

    /// Everything up to the end of the stream.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.read_some() > 0 {}
        std::mem::take(&mut self.client.held)
    }

    fn read_some(&mut self) -> usize {
        let mut buffer = [0; 64 * 1024];
        let count = self.client.stream.read(&mut buffer).unwrap_or(0);
        self.client.held.extend_from_slice(&buffer[..count]);
        self.state.bytes.lock().unwrap().extend_from_slice(&buffer[..count]);
        count
    }

    /// Writes; a gateway that has gone is no fault of the server.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.client.stream.write_all(bytes.as_ref());
    }

    /// Writes, and says whether anybody took it.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.client.stream.write_all(bytes).is_ok()
    }

    pub fn close_write(&self) {
        let _ = self.client.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Makes the close a reset.
    pub fn reset(&mut self) {
        let socket = socket2::SockRef::from(&self.client.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    }
}
