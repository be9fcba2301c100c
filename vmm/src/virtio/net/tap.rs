//! A tap interface of the host's.
//!
//! Owns its descriptor. Must not know the device. The kernel's header before each frame has the size of
//! the device's, and says nothing: checksums are there and frames are whole (no offloads).

#![allow(unsafe_code)] // TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ, if_nametoindex

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use devices::virtio::net::{HEADER, Received, Sent};

const CLONE: &str = "/dev/net/tun";
/// `EBADFD`: the interface was removed.
const REMOVED: i32 = libc::EBADFD;

/// A tap interface.
pub struct Tap {
    file: File,
}

/// Checks that an interface can have this name.
///
/// # Errors
/// One line.
pub fn check_name(name: &str) -> Result<(), String> {
    let letter = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%' | ',');
    let fits = (1..libc::IFNAMSIZ).contains(&name.len()) && name.chars().all(letter);
    match fits && name != "." && name != ".." {
        true => Ok(()),
        false => Err(format!("'{name}' is no name of an interface: up to 15 letters and digits")),
    }
}

impl Tap {
    /// Opens the interface of this name, which has to exist.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn open(name: &str) -> Result<Self, String> {
        check_name(name)?;
        let add =
            format!("ip tuntap add dev {name} mode tap user $(id -un) && ip link set {name} up");
        // Opening would make one that is down and goes with this process, if that were permitted.
        if !exists(name) {
            return Err(format!("there is no such interface; as root: {add}"));
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(CLONE)
            .map_err(|error| match error.kind() {
                ErrorKind::NotFound => format!("{CLONE} is missing; as root: modprobe tun"),
                ErrorKind::PermissionDenied => {
                    format!("{CLONE}: no permission; as root: chmod 666 {CLONE}")
                }
                _ => format!("{CLONE}: {error}"),
            })?;
        attach(&file, name).map_err(|error| match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => format!(
                "the interface is not this user's; as root: ip tuntap del dev {name} mode tap && {add}"
            ),
            Some(libc::EBUSY) => "the interface is in use; name another".to_owned(),
            Some(libc::EINVAL) => format!(
                "the interface is no tap, or one of several queues; as root: ip link del {name} && {add}"
            ),
            _ => format!("cannot be used: {error}"),
        })?;
        Ok(Tap { file })
    }

    /// As [`devices::virtio::net::Port::send`].
    pub fn send(&mut self, frame: &[u8]) -> Sent {
        let header = [0; HEADER];
        match self.file.write_vectored(&[IoSlice::new(&header), IoSlice::new(frame)]) {
            Ok(_) => Sent::Done,
            Err(error) if error.kind() == ErrorKind::WouldBlock => Sent::Later,
            Err(error) if error.raw_os_error() == Some(REMOVED) => Sent::Gone,
            // The interface is down, or the kernel does not like the frame.
            Err(_) => Sent::Done,
        }
    }

    /// As [`devices::virtio::net::Port::receive`].
    pub fn receive(&mut self, frame: &mut [u8]) -> Received {
        let mut header = [0; HEADER];
        loop {
            let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(frame)];
            return match self.file.read_vectored(parts) {
                Ok(count) => Received::Frame(count.saturating_sub(HEADER)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Received::Nothing,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::warn!(%error, "a tap interface cannot be read any more");
                    Received::Gone
                }
            };
        }
    }
}

impl AsRawFd for Tap {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

fn exists(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: the name ends with a zero, and is only read.
    unsafe { libc::if_nametoindex(name.as_ptr()) != 0 }
}

fn attach(file: &File, name: &str) -> io::Result<()> {
    // SAFETY: all zeros is a request without a name.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    let size = HEADER as libc::c_int;
    let result = |done: libc::c_int| match done {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    };
    // SAFETY: the kernel reads and writes one such request.
    result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    // SAFETY: the kernel reads one integer.
    result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })?;
    // SAFETY: the argument is an integer: no offloads.
    result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD, 0) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_interface_is_not_made_and_the_fix_is_named() {
        let error = Tap::open("siesta-none").err().expect("there is none");
        assert!(error.contains("ip tuntap add dev siesta-none mode tap"), "{error}");
        assert!(!exists("siesta-none"));
    }

    #[test]
    fn interface_that_is_no_tap_is_refused() {
        let error = Tap::open("lo").err().expect("it is none");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
