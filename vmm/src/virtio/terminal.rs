//! What is behind the console device: a console of the process, as behind the serial port.
//!
//! Owns how it is named. Must not know queues, nor how bytes get to files and sockets.

use std::fmt;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use devices::virtio::console::{Console, Terminal};
use devices::virtio::{Memory, Signal};
use serde::{Deserialize, Serialize};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::on_loop::{self, HostSide};
use super::wiring::{self, Line, Wired, was_told};
use super::{Backend, Plug, Running, Socket, VirtioError, numbered_path};
use crate::console::{self, ConsoleReader, ConsoleWriter, Sink, socket};
use crate::event_loop::EventLoop;

/// Where a console device's bytes go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum TerminalConfig {
    /// Standard output, each line behind this prefix (empty: none).
    Stdout(String),
    /// A file.
    File(PathBuf),
    /// A unix socket, whose client's words go to the guest.
    Socket(PathBuf),
}

impl FromStr for TerminalConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match (text, text.strip_prefix("unix:")) {
            ("stdio", _) => TerminalConfig::Stdout(String::new()),
            ("", _) | (_, Some("")) => return Err("stdio, FILE or unix:SOCKET".into()),
            (_, Some(path)) => TerminalConfig::Socket(path.into()),
            (path, None) => TerminalConfig::File(path.into()),
        })
    }
}

impl TryFrom<String> for TerminalConfig {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<TerminalConfig> for String {
    fn from(config: TerminalConfig) -> String {
        config.to_string()
    }
}

impl fmt::Display for TerminalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TerminalConfig::Stdout(_) => write!(f, "stdio"),
            TerminalConfig::File(path) => write!(f, "{}", path.display()),
            TerminalConfig::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl TerminalConfig {
    /// That of VM `index` of several that are alike.
    #[must_use]
    pub fn numbered(&self, index: u32) -> Self {
        match self {
            TerminalConfig::Stdout(_) => TerminalConfig::Stdout(format!("vm{index} hvc0: ")),
            TerminalConfig::File(path) => TerminalConfig::File(numbered_path(path, index)),
            TerminalConfig::Socket(path) => TerminalConfig::Socket(numbered_path(path, index)),
        }
    }

    /// Creates the file or socket.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(super) fn open(&self) -> Result<TerminalPlug, VirtioError> {
        let refused = |path: &Path, what| VirtioError::Console { path: path.to_path_buf(), what };
        let sink = match self {
            TerminalConfig::Stdout(prefix) => Sink::Stdout(prefix.clone()),
            TerminalConfig::File(path) => Sink::File(
                File::create(path)
                    .map_err(|error| refused(path, format!("cannot be written: {error}")))?,
            ),
            TerminalConfig::Socket(path) => {
                Sink::Socket(socket::Listener::bind(path).map_err(|what| refused(path, what))?)
            }
        };
        let (console, writer) = console::console(sink).map_err(VirtioError::Descriptors)?;
        let input = EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(VirtioError::Descriptors)?;
        let input = Arc::new(input);
        let told = Arc::clone(&input);
        writer.on_input(move || {
            // A full counter means that the reader has been told already.
            let _ = told.write(1);
        });
        let reader = writer.reader();
        Ok(TerminalPlug { console, terminal: HostTerminal { writer, reader, input } })
    }
}

/// The guest's end of a console of the process.
pub struct HostTerminal {
    writer: ConsoleWriter,
    reader: ConsoleReader,
    /// Readable when something was said to the guest.
    input: Arc<EventFd>,
}

impl Terminal for HostTerminal {
    fn write(&mut self, bytes: &[u8]) {
        // It never fails: what does not fit is dropped and counted.
        let _ = self.writer.write(bytes);
    }

    fn read(&mut self, bytes: &mut [u8]) -> usize {
        self.reader.read(bytes).unwrap_or(0)
    }
}

impl HostSide for Console<HostTerminal> {
    fn interests(&self) -> Vec<Option<(RawFd, EventSet)>> {
        vec![Some((self.terminal().input.as_raw_fd(), EventSet::IN))]
    }

    fn ready(&mut self, memory: &Memory, _index: usize, _events: EventSet) -> Signal {
        let _ = was_told(&self.terminal().input);
        self.input_came(memory)
    }
}

/// A console device that is to be put into a VM.
pub(super) struct TerminalPlug {
    console: console::Console,
    terminal: HostTerminal,
}

impl Plug for TerminalPlug {
    fn plug(self: Box<Self>, into: &mut Socket<'_>) -> Result<Box<dyn Backend>, VirtioError> {
        let TerminalPlug { console, terminal } = *self;
        let device = wiring::wire(Console::new(terminal), into)?;
        Ok(Box::new(TerminalBackend { console, device }))
    }
}

struct TerminalBackend {
    console: console::Console,
    device: Wired<Console<HostTerminal>>,
}

impl Backend for TerminalBackend {
    fn start(self: Box<Self>, line: Line, event_loop: &EventLoop) -> Result<Running, VirtioError> {
        let TerminalBackend { console, device } = *self;
        let console = event_loop.add(console)?;
        let device = event_loop.carry(Box::new(on_loop::Carried::new(device, line)))?;
        Ok(Running::Console { device, console })
    }

    fn irq(&self) -> u8 {
        self.device.irq
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_are_read_as_they_are_written() {
        for text in ["stdio", "out.txt", "unix:/run/c"] {
            assert_eq!(text.parse::<TerminalConfig>().expect(text).to_string(), text);
        }
        assert!(
            "".parse::<TerminalConfig>().is_err() && "unix:".parse::<TerminalConfig>().is_err()
        );
        let numbered = |text: &str| {
            text.parse::<TerminalConfig>().expect("it is right").numbered(3).to_string()
        };
        assert_eq!((numbered("a"), numbered("unix:b")), ("a.3".into(), "unix:b.3".into()));
    }
}
