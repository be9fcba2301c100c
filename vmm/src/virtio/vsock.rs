//! What is behind the socket device: unix sockets of the host's.
//!
//! Owns the listening socket, those that have connected and not said to which port, and the epoll that
//! watches all of them, which the event loop sees as one descriptor. Must not know packets.
//!
//! A program of the host's connects to PATH and writes `CONNECT port` and a newline; once the guest has
//! accepted it gets `OK port` and a newline, with the port of its own side. A program of the guest's that
//! connects to port N of the host (context ID 2) gets to whoever listens at PATH_N.
//!
//! | threat | answer |
//! |---|---|
//! | programs of the host's that connect and say nothing | [`MOST_UNKNOWN`], after which the one that has waited longest is closed |
//! | lines that are no request, or longer than [`LONGEST_LINE`] | closed |
//! | out of descriptors | who wants to connect is let in and closed, so that nothing is ready for ever |
//! | PATH_N that does not answer | the guest is told so at once; nothing is waited for |

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;

use devices::virtio::vsock::{GREATEST_CID, Got, Host, Interest, LEAST_CID, Put, Stream, Vsock};
use devices::virtio::{Memory, Signal};
use serde::{Deserialize, Serialize};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::VirtioError;
use super::on_loop::HostSide;
use super::unix::{self, Kind};
use crate::console::socket::Listener;

/// The most programs that have connected and not said to which port.
pub const MOST_UNKNOWN: usize = 32;
/// The longest first line of a program, in bytes, with its newline.
pub const LONGEST_LINE: usize = 32;

/// Events that are looked at in one turn.
const MOST_EVENTS: usize = 32;
/// What names events of the listening socket, and of programs that have said nothing; those of
/// connections are named by their place.
const LISTENER: u64 = u64::MAX;
const UNKNOWN: u64 = 1 << 32;

/// A socket device as it is asked for: `cid=N,path=PATH`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct VsockConfig {
    /// Context ID of the guest.
    pub cid: u64,
    /// The socket that programs of the host's connect to; the start of the names of others.
    pub path: PathBuf,
}

const USAGE: &str = "cid=N,path=PATH, with N from 3 on";

impl FromStr for VsockConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut cid, mut path) = (None, None);
        for part in text.split(',') {
            match part.split_once('=') {
                Some(("cid", number)) if cid.is_none() => cid = number.parse().ok(),
                Some(("path", name)) if path.is_none() && !name.is_empty() => {
                    path = Some(name.into());
                }
                _ => return Err(USAGE.into()),
            }
        }
        let cid = cid.filter(|cid| (LEAST_CID..=GREATEST_CID).contains(cid)).ok_or(USAGE)?;
        Ok(VsockConfig { cid, path: path.ok_or(USAGE)? })
    }
}

impl TryFrom<String> for VsockConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<VsockConfig> for String {
    fn from(config: VsockConfig) -> String {
        config.to_string()
    }
}

impl fmt::Display for VsockConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cid={},path={}", self.cid, self.path.display())
    }
}

impl VsockConfig {
    /// The device of VM `index` of several that are alike.
    #[must_use]
    pub fn numbered(&self, index: u32) -> Self {
        let cid = (self.cid + u64::from(index)).min(GREATEST_CID);
        VsockConfig { cid, path: super::numbered_path(&self.path, index) }
    }

    /// Listens.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn open(&self) -> Result<Vsock<UnixHost>, VirtioError> {
        let refused = |what| VirtioError::Vsock { path: self.path.clone(), what };
        let listener = Listener::bind(&self.path).map_err(refused)?;
        let epoll = Epoll::new().map_err(VirtioError::Descriptors)?;
        let wanted = EpollEvent::new(EventSet::IN, LISTENER);
        epoll
            .ctl(ControlOperation::Add, listener.as_raw_fd(), wanted)
            .map_err(VirtioError::Descriptors)?;
        let host = UnixHost {
            path: self.path.clone(),
            listener,
            unknown: VecDeque::new(),
            next_unknown: 0,
            spare: File::open("/dev/null").ok(),
            epoll,
        };
        Ok(Vsock::new(host, self.cid))
    }
}

/// A program that has not said to which port.
struct Unknown {
    name: u64,
    socket: UnixStream,
    line: Vec<u8>,
}

/// The unix sockets.
pub struct UnixHost {
    path: PathBuf,
    listener: Listener,
    /// In the order in which they came.
    unknown: VecDeque<Unknown>,
    next_unknown: u32,
    /// A descriptor to do without when there is no other.
    spare: Option<File>,
    epoll: Epoll,
}

/// A connection's socket.
pub struct HostStream(UnixStream);

impl Stream for HostStream {
    fn read(&mut self, bytes: &mut [u8]) -> Got {
        match self.0.read(bytes) {
            Ok(0) => Got::End,
            Ok(count) => Got::Bytes(count),
            Err(error) if later(error.kind()) => Got::Nothing,
            Err(_) => Got::Gone,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Put {
        match self.0.write(bytes) {
            Ok(count) => Put::Bytes(count),
            Err(error) if later(error.kind()) => Put::Later,
            Err(_) => Put::Gone,
        }
    }

    fn finish(&mut self) {
        // Somebody who has gone need not be told.
        let _ = self.0.shutdown(std::net::Shutdown::Write);
    }

    fn opened(&mut self, host_port: u32) -> bool {
        // Nothing was written before, so there is room.
        self.0.write_all(format!("OK {host_port}\n").as_bytes()).is_ok()
    }
}

fn later(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl Host for UnixHost {
    type Stream = HostStream;

    fn connect(&mut self, port: u32) -> Option<HostStream> {
        let mut path = OsString::from(&self.path);
        path.push(format!("_{port}"));
        let socket = unix::connect(path.as_ref(), Kind::Stream);
        socket.ok().map(|socket| HostStream(socket.into()))
    }

    fn watch(&mut self, slot: u16, stream: &HostStream, interest: Interest) {
        let mut events = EventSet::empty();
        events.set(EventSet::IN, interest.read);
        events.set(EventSet::OUT, interest.write);
        let event = EpollEvent::new(events, u64::from(slot));
        let fd = stream.0.as_raw_fd();
        if interest == Interest::default() {
            // It may not have been watched.
            let _ = self.epoll.ctl(ControlOperation::Delete, fd, event);
            return;
        }
        let watched = self.epoll.ctl(ControlOperation::Modify, fd, event);
        if let Err(error) = watched.or_else(|_| self.epoll.ctl(ControlOperation::Add, fd, event)) {
            tracing::error!(%error, "cannot watch a vsock connection");
        }
    }
}

/// What came of a program's first line.
enum Line {
    /// It is not complete.
    Partial,
    /// It wants this port of the guest's.
    Port(u32),
    /// It is no request, or the program has gone.
    Wrong,
}

impl Unknown {
    /// Reads the line, and nothing behind it.
    fn read(&mut self) -> Line {
        let mut byte = [0];
        while self.line.len() < LONGEST_LINE {
            match self.socket.read(&mut byte) {
                Ok(1..) if byte == *b"\n" => return port(&self.line),
                Ok(1..) => self.line.push(byte[0]),
                Err(error) if later(error.kind()) => return Line::Partial,
                Ok(0) | Err(_) => return Line::Wrong,
            }
        }
        Line::Wrong
    }
}

fn port(line: &[u8]) -> Line {
    let text = std::str::from_utf8(line).ok();
    let number = text.and_then(|text| text.trim_end_matches('\r').strip_prefix("CONNECT "));
    match number.and_then(|number| number.parse().ok()) {
        Some(port) => Line::Port(port),
        None => Line::Wrong,
    }
}

impl UnixHost {
    fn accept(&mut self) {
        let socket = match self.listener.accept() {
            Ok(socket) => socket,
            Err(error) if later(error.kind()) => return,
            Err(_) => {
                self.turn_away();
                return;
            }
        };
        if self.unknown.len() >= MOST_UNKNOWN {
            self.unknown.pop_front();
        }
        let name = UNKNOWN | u64::from(self.next_unknown);
        self.next_unknown = self.next_unknown.wrapping_add(1);
        let wanted = EpollEvent::new(EventSet::IN, name);
        if self.epoll.ctl(ControlOperation::Add, socket.as_raw_fd(), wanted).is_ok() {
            self.unknown.push_back(Unknown { name, socket, line: Vec::new() });
        }
    }

    /// Without a descriptor: who waits is let in with the spare one, and closed.
    fn turn_away(&mut self) {
        drop(self.spare.take());
        drop(self.listener.accept());
        self.spare = File::open("/dev/null").ok();
    }

    /// A program that has said nothing yet may have. Answers its socket and port when it has.
    fn heard(&mut self, name: u64) -> Option<(HostStream, u32)> {
        let at = self.unknown.iter().position(|unknown| unknown.name == name)?;
        let line = self.unknown[at].read();
        if matches!(line, Line::Partial) {
            return None;
        }
        let unknown = self.unknown.remove(at)?;
        let fd = unknown.socket.as_raw_fd();
        let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        match line {
            Line::Port(port) => Some((HostStream(unknown.socket), port)),
            Line::Partial | Line::Wrong => None,
        }
    }
}

impl HostSide for Vsock<UnixHost> {
    fn interests(&self) -> Vec<Option<(RawFd, EventSet)>> {
        vec![Some((self.host().epoll.as_raw_fd(), EventSet::IN))]
    }

    fn ready(&mut self, memory: &Memory, _index: usize, _events: EventSet) -> Signal {
        let mut events = [EpollEvent::default(); MOST_EVENTS];
        let count = self.host().epoll.wait(0, &mut events).unwrap_or(0);
        let mut signal = Signal::NONE;
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.host_mut().accept(),
                name if name >= UNKNOWN => {
                    if let Some((stream, port)) = self.host_mut().heard(name) {
                        signal |= self.open(memory, stream, port);
                    }
                }
                slot => {
                    let set = event.event_set();
                    let found = Interest {
                        read: set.contains(EventSet::IN),
                        write: set.contains(EventSet::OUT),
                        gone: set.intersects(EventSet::HANG_UP | EventSet::ERROR),
                    };
                    signal |= self.stream_ready(memory, slot as u16, found);
                }
            }
        }
        signal
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn descriptions_are_read_as_they_are_written() {
        let text = "cid=3,path=/run/v";
        let config: VsockConfig = text.parse().expect("it is right");
        assert_eq!(config.to_string(), text);
        assert_eq!(config.numbered(2).to_string(), "cid=5,path=/run/v.2");
        for wrong in [
            "",
            "cid=2,path=a",
            "cid=3",
            "path=a",
            "cid=3,path=",
            "cid=x,path=a",
            "cid=4294967295,path=a",
            "cid=3,cid=4,path=a",
            "cid=3,path=a,b=c",
        ] {
            assert!(wrong.parse::<VsockConfig>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn first_line_names_the_port_and_what_follows_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = VsockConfig { cid: 3, path: folder.path().join("v") };
        let mut device = config.open().expect("a socket");
        let host = device.host_mut();
        for (said, port) in [
            (&b"CONNECT 1234\nhello"[..], Some(1234)),
            (b"CONNECT 4294967295\n", Some(u32::MAX)),
            (b"CONNECT 4294967296\n", None),
            (b"CONNECT x\n", None),
            (b"GET / HTTP/1.1\n", None),
            (b"\n", None),
            (&[b'x'; 100], None),
        ] {
            let mut program = UnixStream::connect(&config.path).expect("it listens");
            host.accept();
            let name = host.unknown[0].name;
            assert!(host.heard(name).is_none());
            program.write_all(said).expect("there is room");
            let heard = host.heard(name);
            assert_eq!(heard.as_ref().map(|(_, port)| *port), port, "{said:?}");
            assert!(host.unknown.is_empty());
            if said.ends_with(b"hello") {
                let (mut stream, _) = heard.expect("it has");
                let mut bytes = [0; 10];
                assert_eq!(stream.read(&mut bytes), Got::Bytes(5));
                assert!(stream.opened(77));
                let mut answer = [0; 6];
                program.read_exact(&mut answer).expect("it was answered");
                assert_eq!(&answer, b"OK 77\n");
            }
        }
    }

    #[test]
    fn silent_programs_are_bounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = VsockConfig { cid: 3, path: folder.path().join("v") };
        let mut device = config.open().expect("a socket");
        let mut programs = Vec::new();
        for _ in 0..MOST_UNKNOWN + 3 {
            programs.push(UnixStream::connect(&config.path).expect("it listens"));
            device.host_mut().accept();
        }
        assert_eq!(device.host().unknown.len(), MOST_UNKNOWN);
        assert_eq!(programs[2].read(&mut [0]).expect("it was closed"), 0);
        programs[3].set_nonblocking(true).expect("a socket");
        assert!(programs[3].read(&mut [0]).is_err(), "it is still there");
    }

    #[test]
    fn guest_gets_to_the_socket_of_the_port() {
        let folder = tempfile::tempdir().expect("a folder");
        let config = VsockConfig { cid: 3, path: folder.path().join("v") };
        let mut device = config.open().expect("a socket");
        assert!(device.host_mut().connect(80).is_none());
        let listener = UnixListener::bind(folder.path().join("v_80")).expect("a socket");
        let mut stream = device.host_mut().connect(80).expect("somebody listens");
        assert_eq!(stream.write(b"hi"), Put::Bytes(2));
        let (mut program, _) = listener.accept().expect("it has connected");
        let mut bytes = [0; 2];
        program.read_exact(&mut bytes).expect("it was said");
        assert_eq!(stream.read(&mut bytes), Got::Nothing);
        drop(program);
        assert_eq!(stream.read(&mut bytes), Got::End);
        let error = config.open().err().expect("the path is taken").to_string();
        assert!(error.contains("exists already"), "{error}");
    }
}
