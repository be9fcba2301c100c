//! Unix sockets of the kinds and in the ways that the standard library has not.
//!
//! Owns nothing. Must not know devices.

#![allow(unsafe_code)] // socket, connect, bind, socketpair, fcntl, getsockopt

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A kind of socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Stream,
    /// Messages, with a connection.
    SeqPacket,
    /// Messages.
    Datagram,
}

impl Kind {
    fn number(self) -> libc::c_int {
        match self {
            Kind::Stream => libc::SOCK_STREAM,
            Kind::SeqPacket => libc::SOCK_SEQPACKET,
            Kind::Datagram => libc::SOCK_DGRAM,
        }
    }
}

fn result(done: libc::c_int) -> io::Result<libc::c_int> {
    match done {
        -1 => Err(io::Error::last_os_error()),
        done => Ok(done),
    }
}

fn owned(fd: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: whoever calls got it from the kernel, which made it; it is nobody else's.
    result(fd).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A socket that is connected with the one of this path, and does not block; nor does this call. One of
/// datagrams has a name of its own, so that it can be answered.
///
/// # Errors
/// Nobody listens there (`NotFound`, `ConnectionRefused`), or has too many that wait (`WouldBlock`); it
/// is of another kind (`EPROTOTYPE`), the path is too long (`InvalidInput`), and others.
pub fn connect(path: &Path, kind: Kind) -> io::Result<OwnedFd> {
    let bytes = path.as_os_str().as_bytes();
    // SAFETY: all zeros is an address without a path.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    // The path ends with a zero.
    if bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes integers only.
    let socket = owned(unsafe { libc::socket(libc::AF_UNIX, kind.number() | flags, 0) })?;
    let at = (&raw const address).cast::<libc::sockaddr>();
    if kind == Kind::Datagram {
        let nameless = offset_of!(libc::sockaddr_un, sun_path) as libc::socklen_t;
        // SAFETY: the kernel reads the family alone, and chooses a name.
        result(unsafe { libc::bind(socket.as_raw_fd(), at, nameless) })?;
    }
    let len = size_of::<libc::sockaddr_un>() as libc::socklen_t;
    // SAFETY: the kernel reads an address of this length.
    result(unsafe { libc::connect(socket.as_raw_fd(), at, len) })?;
    Ok(socket)
}

/// A duplicate of a descriptor that is not passed on to other programs.
///
/// # Errors
/// There is no such descriptor, or too many.
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes integers only; a descriptor that does not exist is refused.
    owned(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) })
}

/// What kind of unix socket a descriptor is, if it is one.
#[must_use]
pub fn kind(socket: &OwnedFd) -> Option<Kind> {
    let option = |name| {
        let (mut value, mut len) = (0, size_of::<libc::c_int>() as libc::socklen_t);
        let (to, fd) = ((&raw mut value).cast(), socket.as_raw_fd());
        // SAFETY: the kernel writes one integer of that length.
        let done = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, name, to, &raw mut len) };
        result(done).ok().map(|_| value)
    };
    option(libc::SO_DOMAIN).filter(|domain: &libc::c_int| *domain == libc::AF_UNIX)?;
    let number = option(libc::SO_TYPE)?;
    [Kind::Stream, Kind::SeqPacket, Kind::Datagram].into_iter().find(|kind| kind.number() == number)
}

/// Two sockets that are connected with each other, for tests.
///
/// # Errors
/// Too many open files.
#[cfg(test)]
pub fn pair(kind: Kind) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = kind.number() | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two descriptors.
    result(unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) })?;
    Ok((owned(fds[0])?, owned(fds[1])?))
}
