//! A unix socket with a frame in each message.
//!
//! Owns the socket. Must not know the device. Messages are those of `SOCK_SEQPACKET`, which tells when
//! the other end goes, or of `SOCK_DGRAM`, which does not.

use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use devices::virtio::net::{Received, Sent};

use crate::virtio::unix::{self, Kind};

/// Messages of no frame that are passed over in one call.
const MOST_EMPTY: usize = 16;

/// The socket.
pub struct SocketPort {
    /// Of either kind: sending and receiving are the same.
    socket: UnixDatagram,
    /// The end of the other side is an empty message.
    ends: bool,
}

impl SocketPort {
    /// Connects with the socket of this path.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn connect(path: &Path) -> Result<Self, String> {
        let connected = unix::connect(path, Kind::SeqPacket).map(|socket| (socket, true));
        let connected = match connected {
            Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                unix::connect(path, Kind::Datagram).map(|socket| (socket, false))
            }
            other => other,
        };
        let (socket, ends) = connected.map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                "nobody listens there; start the other side first".to_owned()
            }
            _ if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
                "a stream socket; SOCK_SEQPACKET or SOCK_DGRAM is needed".to_owned()
            }
            _ => format!("cannot be connected: {error}"),
        })?;
        Ok(SocketPort { socket: socket.into(), ends })
    }

    /// Takes a duplicate of an inherited descriptor.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn inherit(fd: RawFd) -> Result<Self, String> {
        let socket: OwnedFd = unix::duplicate(fd).map_err(|_| "no such descriptor".to_owned())?;
        let ends = match unix::kind(&socket) {
            Some(Kind::SeqPacket) => true,
            Some(Kind::Datagram) => false,
            _ => return Err("not a unix socket of SOCK_SEQPACKET or SOCK_DGRAM".into()),
        };
        let socket = UnixDatagram::from(socket);
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        Ok(SocketPort { socket, ends })
    }

    /// As [`devices::virtio::net::Port::send`].
    pub fn send(&mut self, frame: &[u8]) -> Sent {
        match self.socket.send(frame) {
            Ok(_) => Sent::Done,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Later,
            // Nobody can send to a socket of packets again; to one of datagrams they can.
            Err(error) if self.ends && is_gone(error.kind()) => Sent::Gone,
            Err(_) => Sent::Done,
        }
    }

    /// As [`devices::virtio::net::Port::receive`].
    pub fn receive(&mut self, frame: &mut [u8]) -> Received {
        for _ in 0..MOST_EMPTY {
            match self.socket.recv(frame) {
                Ok(0) if self.ends => return Received::Gone,
                Ok(0) => {}
                Ok(count) => return Received::Frame(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Received::Nothing,
                Err(error) if self.ends && is_gone(error.kind()) => return Received::Gone,
                Err(_) => {}
            }
        }
        Received::Nothing
    }
}

fn is_gone(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::BrokenPipe
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::NotConnected
    )
}

impl AsRawFd for SocketPort {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn one_frame_is_one_message() {
        let (one, other) = unix::pair(Kind::SeqPacket).expect("sockets");
        let mut port = SocketPort::inherit(one.as_raw_fd()).expect("a socket of packets");
        drop(one);
        let other = UnixDatagram::from(other);
        let mut frame = [0; 100];
        assert_eq!(port.receive(&mut frame), Received::Nothing);
        other.send(&[1; 60]).expect("there is room");
        other.send(&[2; 70]).expect("there is room");
        assert_eq!(port.receive(&mut frame), Received::Frame(60));
        assert_eq!(port.receive(&mut frame), Received::Frame(70));
        assert_eq!(port.send(&[3; 80]), Sent::Done);
        assert_eq!(other.recv(&mut frame).expect("it was sent"), 80);
    }

    #[test]
    fn sender_waits_for_a_reader_and_hears_of_its_end() {
        let (one, other) = unix::pair(Kind::SeqPacket).expect("sockets");
        let mut port = SocketPort::inherit(one.as_raw_fd()).expect("a socket of packets");
        let sent = (0..100_000).take_while(|_| port.send(&[1; 1000]) == Sent::Done).count();
        assert!(sent < 100_000, "nobody reads");
        drop(other);
        assert_eq!(port.send(&[1; 1000]), Sent::Gone);
        assert_eq!(port.receive(&mut [0; 100]), Received::Gone);
    }

    #[test]
    fn datagrams_are_taken_and_streams_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("net");
        assert!(SocketPort::connect(&path).err().expect("none").contains("start the other side"));
        let other = UnixDatagram::bind(&path).expect("a socket");
        let mut port = SocketPort::connect(&path).expect("it is there");
        assert_eq!(port.send(&[1; 60]), Sent::Done);
        let mut frame = [0; 100];
        let (count, from) = other.recv_from(&mut frame).expect("it was sent");
        assert_eq!(count, 60);
        other.connect_addr(&from).expect("it has an address");
        other.send(&[2; 70]).expect("it can be answered");
        assert_eq!(port.receive(&mut frame), Received::Frame(70));
        let (stream, _kept) = UnixStream::pair().expect("sockets");
        let error = SocketPort::inherit(stream.as_raw_fd()).err().expect("a stream");
        assert!(error.contains("SOCK_SEQPACKET"), "{error}");
        assert!(SocketPort::inherit(9999).is_err());
    }
}
