//! What is behind a network device: a tap interface, or a unix socket with a frame in each message.
//!
//! Owns how the two are named, the device's address, and what is watched. Must not know queues.
//!
//! | written | port |
//! |---|---|
//! | `tap=NAME` | a tap interface that exists ([`tap`]) |
//! | `socket=PATH` | a unix socket (SOCK_SEQPACKET or SOCK_DGRAM) that somebody has bound ([`socket`]) |
//! | `fd=N` | an inherited descriptor of such a socket, for instance of a socket pair |

pub mod mac;
pub mod socket;
pub mod tap;

use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::str::FromStr;

use devices::virtio::net::{Mac, Net, Port, Received, Sent};
use devices::virtio::{Memory, Signal};
use serde::{Deserialize, Serialize};
use vmm_sys_util::epoll::EventSet;

use self::socket::SocketPort;
use self::tap::Tap;
use super::VirtioError;
use super::on_loop::HostSide;

/// Where a network device's frames go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cable {
    /// To a tap interface of this name.
    Tap(String),
    /// To the unix socket of this path.
    Socket(PathBuf),
    /// To an inherited socket.
    Inherited(RawFd),
}

impl fmt::Display for Cable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cable::Tap(name) => write!(f, "tap={name}"),
            Cable::Socket(path) => write!(f, "socket={}", path.display()),
            Cable::Inherited(fd) => write!(f, "fd={fd}"),
        }
    }
}

/// A network device as it is asked for: `tap=NAME`, `socket=PATH` or `fd=N`, and `mac=ADDRESS`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct NetConfig {
    /// Where its frames go.
    pub cable: Cable,
    /// Its address; none: one that is made from the cable's name.
    pub mac: Option<Mac>,
}

const USAGE: &str = "tap=NAME, socket=PATH or fd=N, and with a comma mac=ADDRESS";

impl FromStr for NetConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut cable, mut mac) = (None, None);
        for part in text.split(',') {
            let (key, value) = part.split_once('=').ok_or_else(|| USAGE.to_owned())?;
            let named = match key {
                "tap" => {
                    tap::check_name(value)?;
                    Cable::Tap(value.to_owned())
                }
                "socket" if value.is_empty() => return Err(USAGE.into()),
                "socket" => Cable::Socket(value.into()),
                "fd" => {
                    let fd = value.parse().ok().filter(|fd| *fd >= 0);
                    Cable::Inherited(fd.ok_or_else(|| format!("fd={value}: not a descriptor"))?)
                }
                "mac" if mac.is_none() => {
                    mac = Some(mac::parse(value)?);
                    continue;
                }
                _ => return Err(USAGE.into()),
            };
            if cable.replace(named).is_some() {
                return Err(USAGE.into());
            }
        }
        Ok(NetConfig { cable: cable.ok_or(USAGE)?, mac })
    }
}

impl TryFrom<String> for NetConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<NetConfig> for String {
    fn from(config: NetConfig) -> String {
        config.to_string()
    }
}

impl fmt::Display for NetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cable)?;
        match &self.mac {
            Some(mac) => write!(f, ",mac={}", mac::text(mac)),
            None => Ok(()),
        }
    }
}

impl NetConfig {
    /// The device of VM `index` of several that are alike: its cable has a name of its own, its address
    /// is another.
    ///
    /// # Errors
    /// One line: an inherited socket cannot be everybody's.
    pub fn numbered(&self, index: u32) -> Result<Self, String> {
        let cable = match &self.cable {
            Cable::Tap(name) => {
                let name = format!("{name}.{index}");
                tap::check_name(&name)?;
                Cable::Tap(name)
            }
            Cable::Socket(path) => Cable::Socket(super::numbered_path(path, index)),
            Cable::Inherited(_) => return Err("fd=N is for one VM; use socket=PATH".into()),
        };
        Ok(NetConfig { cable, mac: self.mac.map(|mac| mac::plus(mac, index)) })
    }

    /// Opens what is behind the device.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn open(&self) -> Result<Net<HostPort>, VirtioError> {
        let refused = |what| VirtioError::Net { cable: self.cable.to_string(), what };
        let port = match &self.cable {
            Cable::Tap(name) => HostPort::Tap(Tap::open(name).map_err(refused)?),
            Cable::Socket(path) => HostPort::Socket(SocketPort::connect(path).map_err(refused)?),
            Cable::Inherited(fd) => HostPort::Socket(SocketPort::inherit(*fd).map_err(refused)?),
        };
        let address = self.mac.unwrap_or_else(|| mac::stable(&self.cable.to_string()));
        Ok(Net::new(port, address))
    }
}

/// One of the ports.
pub enum HostPort {
    /// A tap interface.
    Tap(Tap),
    /// A socket.
    Socket(SocketPort),
}

impl Port for HostPort {
    fn send(&mut self, frame: &[u8]) -> Sent {
        match self {
            HostPort::Tap(tap) => tap.send(frame),
            HostPort::Socket(socket) => socket.send(frame),
        }
    }

    fn receive(&mut self, frame: &mut [u8]) -> Received {
        match self {
            HostPort::Tap(tap) => tap.receive(frame),
            HostPort::Socket(socket) => socket.receive(frame),
        }
    }
}

impl AsRawFd for HostPort {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            HostPort::Tap(tap) => tap.as_raw_fd(),
            HostPort::Socket(socket) => socket.as_raw_fd(),
        }
    }
}

impl<P: Port + AsRawFd> HostSide for Net<P> {
    fn interests(&self) -> Vec<Option<(RawFd, EventSet)>> {
        let mut events = EventSet::empty();
        if self.wants_frames() {
            events |= EventSet::IN;
        }
        if self.wants_room() {
            events |= EventSet::OUT;
        }
        // Without a reason it is not watched at all: errors and hang-ups would be reported for ever.
        vec![(!events.is_empty()).then(|| (self.port().as_raw_fd(), events))]
    }

    fn ready(&mut self, memory: &Memory, _index: usize, events: EventSet) -> Signal {
        let broken = events.intersects(EventSet::ERROR | EventSet::HANG_UP);
        let mut signal = Signal::NONE;
        if self.wants_room() && (broken || events.contains(EventSet::OUT)) {
            signal |= self.room_came(memory);
        }
        if self.wants_frames() && (broken || events.contains(EventSet::IN)) {
            signal |= self.frames_came(memory);
        }
        signal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read_as_they_are_written() {
        for text in ["tap=tap0", "socket=/run/a", "fd=3", "tap=t,mac=02:00:00:00:00:2a"] {
            assert_eq!(text.parse::<NetConfig>().expect(text).to_string(), text);
        }
        let turned = "mac=02:00:00:00:00:01,fd=4".parse::<NetConfig>().expect("in any order");
        assert_eq!(turned.to_string(), "fd=4,mac=02:00:00:00:00:01");
        for wrong in [
            "",
            "tap",
            "tap=",
            "tap=a,tap=b",
            "tap=a,socket=b",
            "mac=02:00:00:00:00:01",
            "fd=-1",
            "fd=x",
            "tap=a,mac=02:00:00:00:00",
            "tap=a,mac=01:00:00:00:00:00",
            "socket=",
            "tap=aaaaaaaaaaaaaaaa",
            "tap=a/b",
            "tap=a,mtu=3",
            "tap=a,mac=02:00:00:00:00:01,mac=02:00:00:00:00:02",
        ] {
            let error = wrong.parse::<NetConfig>().expect_err(wrong);
            assert!(!error.is_empty() && error.lines().count() == 1, "{wrong}: {error}");
        }
    }

    #[test]
    fn vms_that_are_alike_have_cables_and_addresses_of_their_own() {
        let all: NetConfig = "tap=t,mac=02:00:00:00:00:ff".parse().expect("it is right");
        assert_eq!(all.numbered(2).expect("a name").to_string(), "tap=t.2,mac=02:00:00:00:01:01");
        let all: NetConfig = "socket=/run/a".parse().expect("it is right");
        assert_eq!(all.numbered(0).expect("a path").to_string(), "socket=/run/a.0");
        assert!("fd=3".parse::<NetConfig>().expect("it is right").numbered(0).is_err());
    }
}
