//! A NATS client in a few lines over the plain text protocol: it shares no code with Loom, so what
//! it can do any client can.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    next: u32,
    waiting: VecDeque<Message>,
    errors: Vec<String>,
    pongs: u32,
}

/// A message as it came over the wire.
#[derive(Clone, Debug)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// Where an answer would go.
    pub reply: Option<String>,
    /// The header block as text; empty if none.
    pub headers: String,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Message {
    /// The payload as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).into_owned()
    }

    /// The payload as JSON; null where it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or_default()
    }

    /// Whether the server says that nobody serves the subject.
    pub fn is_no_responders(&self) -> bool {
        self.headers.starts_with("NATS/1.0 503")
    }
}

impl Client {
    /// Connects to `nats://host:port`, or as somebody to `nats://user:password@host:port`.
    pub fn connect(url: &str) -> io::Result<Self> {
        let address = url.trim_start_matches("nats://");
        let (login, address) = match address.rsplit_once('@') {
            Some((login, address)) => (login.split_once(':'), address),
            None => (None, address),
        };
        let login =
            login.map(|(user, password)| format!("\"user\":\"{user}\",\"pass\":\"{password}\","));
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Self {
            writer: stream.try_clone()?,
            reader: BufReader::new(stream),
            next: 0,
            waiting: VecDeque::new(),
            errors: Vec::new(),
            pongs: 0,
        };
        let connect = format!(
            "CONNECT {{{}\"verbose\":false,\"pedantic\":false,\"headers\":true,\
             \"no_responders\":true,\"name\":\"plain\",\"lang\":\"text\",\"version\":\"0\"}}\r\n",
            login.unwrap_or_default()
        );
        client.write(connect.as_bytes())?;
        client.flush()?;
        Ok(client)
    }

    /// Subscribes; messages come by [`next`](Self::next).
    pub fn subscribe(&mut self, subject: &str) -> io::Result<()> {
        self.next += 1;
        let line = format!("SUB {subject} {}\r\n", self.next);
        self.write(line.as_bytes())?;
        self.flush()
    }

    /// Sends bytes as they are, also what is no frame.
    pub fn write_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write(bytes)?;
        self.flush()
    }

    /// Publishes.
    pub fn publish(&mut self, subject: &str, payload: &[u8]) -> io::Result<()> {
        let line = format!("PUB {subject} {}\r\n", payload.len());
        self.write(line.as_bytes())?;
        self.write(payload)?;
        self.write(b"\r\n")?;
        self.flush()
    }

    /// A request and its first answer.
    pub fn request(&mut self, subject: &str, payload: &[u8]) -> io::Result<Message> {
        self.request_with(subject, "", payload)
    }

    /// A request with headers (`Name: value\r\n` each) and its first answer.
    pub fn request_with(
        &mut self,
        subject: &str,
        headers: &str,
        payload: &[u8],
    ) -> io::Result<Message> {
        self.next += 1;
        let inbox = format!("_INBOX.plain{}.{}", std::process::id(), self.next);
        let number = self.next;
        self.write(format!("SUB {inbox} {number}\r\n").as_bytes())?;
        if headers.is_empty() {
            self.write(format!("PUB {subject} {inbox} {}\r\n", payload.len()).as_bytes())?;
        } else {
            let block = format!("NATS/1.0\r\n{headers}\r\n");
            let line = format!(
                "HPUB {subject} {inbox} {} {}\r\n",
                block.len(),
                block.len() + payload.len()
            );
            self.write(line.as_bytes())?;
            self.write(block.as_bytes())?;
        }
        self.write(payload)?;
        self.write(b"\r\n")?;
        let deadline = Instant::now() + Duration::from_secs(15);
        let mut others = VecDeque::new();
        let answer = loop {
            let Some(message) = self.next(deadline - Instant::now().min(deadline))? else {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer: {subject}"),
                ));
            };
            if message.subject == inbox {
                break message;
            }
            others.push_back(message);
        };
        self.waiting.extend(others);
        self.write(format!("UNSUB {number}\r\n").as_bytes())?;
        Ok(answer)
    }

    /// The next message, or none within `patience`.
    pub fn next(&mut self, patience: Duration) -> io::Result<Option<Message>> {
        if let Some(message) = self.waiting.pop_front() {
            return Ok(Some(message));
        }
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            // Peeked first: a time-out in the middle of a line would lose its beginning.
            match self.reader.fill_buf() {
                Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
            self.reader
                .get_ref()
                .set_read_timeout(Some(Duration::from_secs(10)))?;
            if let Some(message) = self.read_one()? {
                return Ok(Some(message));
            }
        }
    }

    /// Errors the server sent, such as permission violations.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Waits until the server has seen everything sent so far.
    pub fn flush_round_trip(&mut self) -> io::Result<()> {
        let before = self.pongs;
        self.write(b"PING\r\n")?;
        let mut others = VecDeque::new();
        while self.pongs == before {
            if let Some(message) = self.read_one()? {
                others.push_back(message);
            }
        }
        self.waiting.extend(others);
        Ok(())
    }

    fn read_one(&mut self) -> io::Result<Option<Message>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["PING"] => {
                self.write(b"PONG\r\n")?;
                Ok(None)
            }
            ["PONG"] => {
                self.pongs += 1;
                Ok(None)
            }
            ["MSG", subject, _, rest @ .., size] => {
                self.body(subject, rest.first(), "0", size).map(Some)
            }
            ["HMSG", subject, _, rest @ .., head, size] => {
                self.body(subject, rest.first(), head, size).map(Some)
            }
            ["-ERR", ..] => {
                self.errors.push(line.trim().to_owned());
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn body(
        &mut self,
        subject: &str,
        reply: Option<&&str>,
        head: &str,
        size: &str,
    ) -> io::Result<Message> {
        let bad = |_| io::Error::from(io::ErrorKind::InvalidData);
        let head: usize = head.parse().map_err(bad)?;
        let size: usize = size.parse().map_err(bad)?;
        let mut bytes = vec![0; size + 2];
        self.reader.read_exact(&mut bytes)?;
        bytes.truncate(size);
        let payload = bytes.split_off(head);
        Ok(Message {
            subject: subject.to_owned(),
            reply: reply.map(|reply| (*reply).to_owned()),
            headers: String::from_utf8_lossy(&bytes).into_owned(),
            payload,
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}
