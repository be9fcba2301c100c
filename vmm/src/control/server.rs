//! The control socket: lines in, lines out.
//!
//! Owns the listening socket, the clients and what is under way to and from each. Never blocks.
//! Must not know what the lines mean.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use crate::console::socket::Listener;

/// Longest request, in bytes, its end included.
pub const LONGEST_LINE: usize = 64 << 10;
/// Most clients at a time.
pub const MOST_CLIENTS: usize = 32;

const LISTENER: u64 = 0;
const EVENTS_AT_ONCE: usize = 16;

struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// It is dropped once its output is sent.
    closing: bool,
    /// When it spoke last, by the server's count of events.
    spoke: u64,
}

/// What became of a client.
#[derive(PartialEq, Eq)]
enum Fate {
    Stays,
    Goes,
}

/// The socket and its clients. Its descriptor is readable when [`Server::serve`] has something to do.
pub struct Server {
    epoll: Epoll,
    listener: Listener,
    clients: BTreeMap<u64, Client>,
    next: u64,
    events: u64,
}

impl AsRawFd for Server {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl Server {
    /// Serves whoever connects to `listener`.
    ///
    /// # Errors
    /// Out of descriptors.
    pub fn new(listener: Listener) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let event = EpollEvent::new(EventSet::IN, LISTENER);
        epoll.ctl(ControlOperation::Add, listener.as_raw_fd(), event)?;
        Ok(Server { epoll, listener, clients: BTreeMap::new(), next: LISTENER + 1, events: 0 })
    }

    /// Takes in what has come and answers each whole line with `answer`'s, which has no line feed.
    pub fn serve(&mut self, mut answer: impl FnMut(&str) -> String) {
        let mut events = [EpollEvent::default(); EVENTS_AT_ONCE];
        // Interrupted or not, whatever is left to do makes the descriptor readable again.
        let count = self.epoll.wait(0, &mut events).unwrap_or(0);
        for event in &events[..count] {
            self.events += 1;
            match event.data() {
                LISTENER => self.accept(),
                id => self.attend(id, &mut answer),
            }
        }
    }

    /// Sends what is left as far as it goes at once: the process ends.
    pub fn finish(mut self) {
        for client in self.clients.values_mut() {
            let _ = client.send();
        }
    }

    fn accept(&mut self) {
        // Whoever has gone again meanwhile is nobody's loss.
        let Ok(stream) = self.listener.accept() else { return };
        if self.clients.len() >= MOST_CLIENTS
            && let Some((&silent, _)) = self.clients.iter().min_by_key(|(_, client)| client.spoke)
        {
            self.drop_client(silent);
        }
        let (id, spoke) = (self.next, self.events);
        self.next += 1;
        let event = EpollEvent::new(EventSet::IN, id);
        if self.epoll.ctl(ControlOperation::Add, stream.as_raw_fd(), event).is_ok() {
            let (input, output) = (Vec::new(), Vec::new());
            let client = Client { stream, input, output, closing: false, spoke };
            self.clients.insert(id, client);
        }
    }

    fn attend(&mut self, id: u64, answer: &mut impl FnMut(&str) -> String) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        client.spoke = self.events;
        if client.attend(answer) == Fate::Goes {
            return self.drop_client(id);
        }
        let wanted = if client.output.is_empty() { EventSet::IN } else { EventSet::OUT };
        let event = EpollEvent::new(wanted, id);
        let fd = client.stream.as_raw_fd();
        if self.epoll.ctl(ControlOperation::Modify, fd, event).is_err() {
            self.drop_client(id);
        }
    }

    fn drop_client(&mut self, id: u64) {
        if let Some(client) = self.clients.remove(&id) {
            let fd = client.stream.as_raw_fd();
            // Closing it would do that, too.
            let _ = self.epoll.ctl(ControlOperation::Delete, fd, EpollEvent::default());
        }
    }
}

impl Client {
    fn attend(&mut self, answer: &mut impl FnMut(&str) -> String) -> Fate {
        if self.send().is_err() {
            return Fate::Goes;
        }
        // One that does not read its answers is not asked for more.
        if self.output.is_empty() && !self.closing {
            match self.receive() {
                Ok(true) => {}
                Ok(false) => self.closing = true,
                Err(_) => return Fate::Goes,
            }
        }
        while self.output.is_empty()
            && let Some(end) = self.input.iter().position(|byte| *byte == b'\n')
        {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            let text = String::from_utf8_lossy(&line[..end]);
            self.output.extend(answer(&text).into_bytes());
            self.output.push(b'\n');
            if self.send().is_err() {
                return Fate::Goes;
            }
        }
        if self.input.len() >= LONGEST_LINE && self.output.is_empty() {
            let error = format!(
                "{{\"error\":\"a request is one line of at most {LONGEST_LINE} bytes\"}}\n"
            );
            self.input.clear();
            self.output.extend(error.into_bytes());
            self.closing = true;
            if self.send().is_err() {
                return Fate::Goes;
            }
        }
        if self.closing && self.output.is_empty() { Fate::Goes } else { Fate::Stays }
    }

    /// Reads what there is, within the longest line. `false`: it will not say any more.
    fn receive(&mut self) -> io::Result<bool> {
        let mut bytes = [0; 4096];
        while self.input.len() < LONGEST_LINE {
            let room = (LONGEST_LINE - self.input.len()).min(bytes.len());
            match self.stream.read(&mut bytes[..room]) {
                Ok(0) => return Ok(false),
                Ok(count) => self.input.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::path::PathBuf;

    struct Place {
        _folder: tempfile::TempDir,
        path: PathBuf,
        server: Server,
    }

    fn place() -> Place {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let server = Server::new(Listener::bind(&path).expect("a socket")).expect("an epoll");
        Place { _folder: folder, path, server }
    }

    impl Place {
        fn client(&mut self) -> BufReader<UnixStream> {
            let stream = UnixStream::connect(&self.path).expect("it listens");
            self.rounds();
            BufReader::new(stream)
        }

        fn rounds(&mut self) {
            for _ in 0..2 * MOST_CLIENTS {
                self.server.serve(|line| format!("<{line}>"));
            }
        }
    }

    fn line(client: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        client.read_line(&mut line).expect("text");
        line
    }

    #[test]
    fn lines_are_answered_in_order_however_they_arrive() {
        let mut place = place();
        let mut client = place.client();
        client.get_mut().write_all(b"one\ntwo\nthr").expect("it fits");
        place.rounds();
        client.get_mut().write_all(b"ee\n").expect("it fits");
        place.rounds();
        assert_eq!([(); 3].map(|()| line(&mut client)), ["<one>\n", "<two>\n", "<three>\n"]);
    }

    #[test]
    fn client_that_closes_its_side_still_gets_its_answer_and_goes() {
        let mut place = place();
        let mut client = place.client();
        client.get_mut().write_all(b"last\n").expect("it fits");
        client.get_mut().shutdown(std::net::Shutdown::Write).expect("it is open");
        place.rounds();
        assert_eq!([line(&mut client), line(&mut client)], ["<last>\n", ""]);
        assert!(place.server.clients.is_empty());
    }

    #[test]
    fn line_without_an_end_is_refused_and_the_client_dropped() {
        let mut place = place();
        let mut client = place.client();
        client.get_mut().set_nonblocking(true).expect("a socket");
        let mut sent = 0;
        while let Ok(count) = client.get_mut().write(&[b'x'; 4096]) {
            sent += count;
            place.rounds();
            if sent > 2 * LONGEST_LINE {
                break;
            }
        }
        client.get_mut().set_nonblocking(false).expect("a socket");
        assert!(line(&mut client).contains("at most"));
        assert!(place.server.clients.is_empty());
    }

    #[test]
    fn silent_clients_make_room_for_others() {
        let mut place = place();
        let mut silent: Vec<_> = (0..MOST_CLIENTS).map(|_| place.client()).collect();
        let mut speaker = silent.pop().expect("the last one");
        speaker.get_mut().write_all(b"here\n").expect("it fits");
        place.rounds();
        let mut new = place.client();
        new.get_mut().write_all(b"new\n").expect("it fits");
        place.rounds();
        assert_eq!((line(&mut new), line(&mut speaker)), ("<new>\n".into(), "<here>\n".into()));
        assert_eq!(line(&mut silent[0]), "", "the first one had to go");
        assert_eq!(place.server.clients.len(), MOST_CLIENTS);
    }

    #[test]
    fn client_that_does_not_read_is_not_read_either() {
        let mut place = place();
        let client = place.client();
        client.get_ref().set_nonblocking(true).expect("a socket");
        let mut stuck = 0;
        let request = [b'x'; 1023].iter().chain(b"\n").copied().collect::<Vec<_>>();
        while stuck < 3 {
            if client.get_ref().write(&request).is_err() {
                stuck += 1;
            }
            place.rounds();
        }
        let held = place.server.clients.values().next().expect("it is there");
        assert!(held.input.len() <= LONGEST_LINE && held.output.len() <= 2 * LONGEST_LINE);
    }
}
