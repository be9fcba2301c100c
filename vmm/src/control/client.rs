//! Asking a running process.
//!
//! Owns the connection. Must not know what is asked, but for the version of the counters. The process is not trusted: what it says may be
//! anything, without an end, or nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use thiserror::Error;

use super::protocol::{Request, Response};
use super::stats::{SCHEMA, Stats};
use crate::clock;

/// How long an answer may take: the longest is a VM that is stopped, or many that are created.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Longest answer in bytes; counters of a million vCPUs fit.
const LONGEST_ANSWER: usize = 1 << 30;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("{path}: {source}; is 'siesta serve --control {path}' running?")]
    Connect {
        /// The socket.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is something else.
    #[error("{path} is no socket; name that of 'siesta serve --control SOCKET'")]
    NoSocket {
        /// The path.
        path: String,
    },
    /// The connection broke.
    #[error("no answer from the process: {0}")]
    Broken(#[from] io::Error),
    /// It ended before the answer did.
    #[error("no answer from the process: it has closed the connection")]
    Closed,
    /// The answer took too long.
    #[error("no answer from the process within {} s: it is busy or stopped", .0.as_secs_f64())]
    Silent(Duration),
    /// The answer is none that this program knows.
    #[error("the process does not speak this program's language: {0}")]
    Strange(#[from] serde_json::Error),
    /// It is not even a line of JSON.
    #[error("what listens there is no 'siesta serve': its answer is no line of JSON")]
    Garbage,
    /// The process refuses.
    #[error("{0}")]
    Refused(String),
    /// The answer is another request's.
    #[error("the process answers something else than it was asked")]
    Beside,
    /// The process is of another version.
    #[error(
        "the process tells '{0}' and this program reads '{SCHEMA}': use the 'siesta' that it runs"
    )]
    Version(String),
}

/// A connection to a running process.
pub struct Client {
    stream: UnixStream,
    patience: Duration,
    /// What came behind the last answer.
    rest: Vec<u8>,
}

impl Client {
    /// Connects. An answer may take [`PATIENCE`].
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| {
            let there = path.metadata().is_ok_and(|there| !there.file_type().is_socket());
            let path = path.display().to_string();
            if there {
                ClientError::NoSocket { path }
            } else {
                ClientError::Connect { path, source }
            }
        })?;
        Ok(Client { stream, patience: PATIENCE, rest: Vec::new() })
    }

    /// The same, with another time that an answer may take, more than none.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Client { patience, ..self }
    }

    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`]. A request that was refused is [`Response::Error`], not an error.
    pub fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let patience = u64::try_from(self.patience.as_nanos()).unwrap_or(u64::MAX);
        let until = clock::now_ns().saturating_add(patience);
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.set_write_timeout(Some(self.patience))?;
        self.stream.write_all(&line).map_err(|error| self.failed(error))?;
        let answer = self.line(until)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Asks for the counters.
    ///
    /// # Errors
    /// [`ClientError`]; also if they are of another version.
    pub fn stats(&mut self) -> Result<Box<Stats>, ClientError> {
        match self.ask(&Request::Stats)? {
            Response::Stats(stats) if stats.schema == SCHEMA => Ok(stats),
            Response::Stats(stats) => Err(ClientError::Version(stats.schema)),
            Response::Error(what) => Err(ClientError::Refused(what)),
            _ => Err(ClientError::Beside),
        }
    }

    fn failed(&self, error: io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Silent(self.patience),
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => ClientError::Closed,
            _ => error.into(),
        }
    }

    /// The next line, without its end.
    fn line(&mut self, until: u64) -> Result<Vec<u8>, ClientError> {
        let mut bytes = vec![0; 64 << 10];
        let mut line = std::mem::take(&mut self.rest);
        let mut looked_at = 0;
        loop {
            if let Some(end) = line[looked_at..].iter().position(|byte| *byte == b'\n') {
                let end = looked_at + end;
                self.rest = line.split_off(end + 1);
                line.truncate(end);
                return Ok(line);
            }
            looked_at = line.len();
            // An answer is an object or a word.
            if line.len() > LONGEST_ANSWER || line.first().is_some_and(|at| !b"{\"".contains(at)) {
                return Err(ClientError::Garbage);
            }
            let left = until.saturating_sub(clock::now_ns());
            if left == 0 {
                return Err(ClientError::Silent(self.patience));
            }
            self.stream.set_read_timeout(Some(Duration::from_nanos(left.max(1_000))))?;
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(count) => line.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::thread;

    /// Asks somebody who answers each request with the next of `answers`, and then does `last`.
    fn ask(
        answers: Vec<Vec<u8>>,
        times: usize,
        last: impl FnOnce(UnixStream) + Send + 'static,
    ) -> Vec<Result<Response, ClientError>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut requests = BufReader::new(stream.try_clone().expect("a descriptor"));
            for answer in answers {
                let mut line = String::new();
                requests.read_line(&mut line).expect("a request");
                // It may have heard enough.
                let _ = stream.write_all(&answer);
            }
            last(stream);
        });
        let mut client =
            Client::connect(&path).expect("it listens").patient(Duration::from_millis(300));
        let heard = (0..times).map(|_| client.ask(&Request::List)).collect();
        drop(client);
        server.join().expect("it does not panic");
        heard
    }

    #[test]
    fn answers_are_lines_however_they_come() {
        let answers = vec![b"\"done\"\n{\"created\":[\"a\"]}\n".to_vec(), Vec::new()];
        let heard = ask(answers, 2, drop);
        assert!(matches!(heard[0], Ok(Response::Done)), "{heard:?}");
        assert!(matches!(&heard[1], Ok(Response::Created(names)) if names == &["a"]), "{heard:?}");
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let garbage = ask(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()], 1, drop);
        assert!(matches!(garbage[0], Err(ClientError::Garbage | ClientError::Strange(_))));
        let endless = ask(vec![vec![0xff; 1 << 20]], 1, drop);
        assert!(matches!(endless[0], Err(ClientError::Garbage)), "{endless:?}");
        let other = ask(vec![b"{\"version\":1}\n".to_vec()], 1, drop);
        assert!(matches!(other[0], Err(ClientError::Strange(_))), "{other:?}");
        let binary = ask(vec![b"\"\xff\xfe\"\n".to_vec()], 1, drop);
        assert!(matches!(binary[0], Err(ClientError::Strange(_))), "{binary:?}");
        let closed = ask(vec![Vec::new()], 1, drop);
        assert!(matches!(closed[0], Err(ClientError::Closed)), "{closed:?}");
        let half = ask(vec![b"{\"vms\":".to_vec()], 1, drop);
        assert!(matches!(half[0], Err(ClientError::Closed)), "{half:?}");
    }

    #[test]
    fn counters_of_another_version_and_other_answers_are_refused() {
        let stats = |answer: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("control");
            let listener = UnixListener::bind(&path).expect("a socket");
            let mut client = Client::connect(&path).expect("it listens");
            let (mut stream, _) = listener.accept().expect("a client");
            stream.write_all(answer.as_bytes()).expect("it fits");
            client.stats()
        };
        let counters = |schema: &str| {
            format!(
                "{{\"stats\":{{\"schema\":\"{schema}\",\"timers\":\"migrate\",\"at_ns\":7,\"created\":2,\
                 \"ended\":1,\"levels\":[],\"vms\":[]}}}}\n"
            )
        };
        let good = stats(&counters(SCHEMA));
        assert_eq!(good.map(|stats| stats.at_ns).ok(), Some(7));
        let other = stats(&counters("siesta.stats/2"));
        assert!(matches!(&other, Err(ClientError::Version(theirs)) if theirs == "siesta.stats/2"));
        let line = other.map(|_| ()).expect_err("another version").to_string();
        assert!(line.contains("siesta.stats/2") && line.contains(SCHEMA), "{line}");
        assert!(matches!(stats("\"done\"\n"), Err(ClientError::Beside)));
        assert!(matches!(stats("{\"error\":\"no\"}\n"), Err(ClientError::Refused(_))));
    }

    #[test]
    fn socket_must_be_one_with_a_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("a file");
        let dead = folder.path().join("dead");
        drop(UnixListener::bind(&dead).expect("a socket"));
        let absent = folder.path().join("absent");
        for path in [file.as_path(), folder.path()] {
            assert!(matches!(Client::connect(path), Err(ClientError::NoSocket { .. })));
        }
        for path in [dead, absent] {
            assert!(matches!(Client::connect(&path), Err(ClientError::Connect { .. })));
        }
    }

    #[test]
    fn silence_ends_even_if_something_trickles() {
        let wait = |mut stream: UnixStream| {
            // Until the client has gone.
            let _ = io::copy(&mut stream, &mut io::sink());
        };
        let silent = ask(vec![Vec::new()], 1, wait);
        assert!(matches!(silent[0], Err(ClientError::Silent(_))), "{silent:?}");
        let trickle = |mut stream: UnixStream| {
            while stream.write_all(b"{").is_ok() {
                thread::sleep(Duration::from_millis(10));
            }
        };
        let slow = ask(vec![Vec::new()], 1, trickle);
        assert!(matches!(slow[0], Err(ClientError::Silent(_))), "{slow:?}");
    }
}
