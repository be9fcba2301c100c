//! The debugger's connection: a unix or TCP socket.
//!
//! Owns the listening socket and the file of a unix one. Must not know what is said.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::str::FromStr;

use gdbstub::conn::{Connection, ConnectionExt};

/// Where the debugger connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket, created at this path.
    Unix(PathBuf),
    /// `HOST:PORT`.
    Tcp(String),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("tcp:") {
            Some(address)
                if address.rsplit_once(':').is_some_and(|(host, port)| {
                    !host.is_empty() && port.parse::<u16>().is_ok()
                }) =>
            {
                Ok(Address::Tcp(address.into()))
            }
            Some(_) => Err("write tcp:HOST:PORT, for instance tcp:127.0.0.1:1234".into()),
            None if text.is_empty() => Err("name a socket: PATH or tcp:HOST:PORT".into()),
            None => Ok(Address::Unix(text.into())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "{}", path.display()),
            Address::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

enum Socket {
    Unix(UnixListener, PathBuf),
    Tcp(TcpListener),
}

/// A socket that waits for debuggers. A unix socket's file is removed with it.
pub struct Listener(Socket);

impl Listener {
    /// Binds the socket.
    ///
    /// # Errors
    /// The path exists, its directory does not, the port is taken.
    pub fn bind(address: &Address) -> io::Result<Self> {
        Ok(Listener(match address {
            Address::Unix(path) => Socket::Unix(UnixListener::bind(path)?, path.clone()),
            Address::Tcp(address) => Socket::Tcp(TcpListener::bind(address)?),
        }))
    }

    /// Waits for a debugger.
    ///
    /// # Errors
    /// What `accept(2)` says.
    pub fn accept(&self) -> io::Result<Stream> {
        match &self.0 {
            Socket::Unix(socket, _) => socket.accept().map(|(stream, _)| Stream::Unix(stream)),
            Socket::Tcp(socket) => socket.accept().map(|(stream, _)| Stream::Tcp(stream)),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match &self.0 {
            Socket::Unix(socket, _) => socket.as_raw_fd(),
            Socket::Tcp(socket) => socket.as_raw_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix(_, path) = &self.0 {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A debugger that is connected.
pub enum Stream {
    /// By a unix socket.
    Unix(UnixStream),
    /// By TCP.
    Tcp(TcpStream),
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Unix(stream) => stream.as_raw_fd(),
            Stream::Tcp(stream) => stream.as_raw_fd(),
        }
    }
}

impl Connection for Stream {
    type Error = io::Error;

    fn write(&mut self, byte: u8) -> io::Result<()> {
        self.write_all(&[byte])
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => Write::write_all(stream, bytes),
            Stream::Tcp(stream) => Write::write_all(stream, bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => Write::flush(stream),
            Stream::Tcp(stream) => Write::flush(stream),
        }
    }

    fn on_session_start(&mut self) -> io::Result<()> {
        match self {
            Stream::Unix(_) => Ok(()),
            // The protocol is many short packets.
            Stream::Tcp(stream) => stream.set_nodelay(true),
        }
    }
}

impl ConnectionExt for Stream {
    fn read(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        match self {
            Stream::Unix(stream) => stream.read_exact(&mut byte)?,
            Stream::Tcp(stream) => stream.read_exact(&mut byte)?,
        }
        Ok(byte[0])
    }

    fn peek(&mut self) -> io::Result<Option<u8>> {
        match self {
            Stream::Unix(stream) => ConnectionExt::peek(stream),
            Stream::Tcp(stream) => ConnectionExt::peek(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_unless_they_say_tcp() {
        assert_eq!("gdb.sock".parse(), Ok(Address::Unix("gdb.sock".into())));
        assert_eq!("tcp:127.0.0.1:1234".parse(), Ok(Address::Tcp("127.0.0.1:1234".into())));
        for wrong in ["", "tcp:", "tcp:host", "tcp:host:x", "tcp::1", "tcp:h:99999"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn file_of_the_socket_goes_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gdb");
        let address = Address::Unix(path.clone());
        let listener = Listener::bind(&address).expect("a socket");
        assert!(path.exists());
        assert!(Listener::bind(&address).is_err(), "it is taken");
        drop(listener);
        assert!(!path.exists());
    }
}
