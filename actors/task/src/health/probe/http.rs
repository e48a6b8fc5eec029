//! `GET`, as far as a health check needs it: the status of the answer.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Refused, Target, why};

/// The most that is read of an answer's head.
const HEAD_MAX: usize = 16 * 1024;
/// The most that is read of its body, so that the server is not cut off in the middle of a small
/// one; and how long.
const BODY_MAX: usize = 64 * 1024;
const BODY_WITHIN: Duration = Duration::from_millis(100);

/// An answer of which the head has come.
pub(super) struct Answer {
    status: u16,
    stream: TcpStream,
}

impl Answer {
    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// Takes what is left of it.
    pub(super) async fn end(mut self) {
        let mut left = BODY_MAX;
        let mut chunk = [0; 4096];
        let rest = async {
            while let Ok(count @ 1..) = self.stream.read(&mut chunk).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    return;
                }
            }
        };
        // Whatever else it would say does not matter.
        let _ = tokio::time::timeout(BODY_WITHIN, rest).await;
    }
}

/// Asks for a path.
pub(super) async fn get(target: &Target, path: &str, refused: &Refused) -> Result<Answer, String> {
    let (mut stream, host) = target.connect(refused).await?;
    let request = request(host, target.port, path);
    let sent = stream.write_all(request.as_bytes()).await;
    sent.map_err(|error| why(&error))?;
    let mut head = Vec::new();
    loop {
        match Head::of(&head) {
            Head::Status(status) => return Ok(Answer { status, stream }),
            Head::More if head.len() < HEAD_MAX => {}
            Head::More | Head::Foreign => return Err("the answer is not HTTP".to_owned()),
        }
        match stream.read_buf(&mut head).await {
            Ok(0) if head.is_empty() => return Err("closed without an answer".to_owned()),
            Ok(0) => return Err("the answer is not HTTP".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(why(&error)),
        }
    }
}

fn request(host: &str, port: u16, path: &str) -> String {
    let host = match host {
        "127.0.0.1" | "::1" => "localhost".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: loom-health/{version}\r\n\
         Accept: */*\r\nConnection: close\r\n\r\n"
    )
}

/// What the beginning of an answer says.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    /// Not enough of it has come.
    More,
    /// Its status.
    Status(u16),
    /// It is not HTTP.
    Foreign,
}

impl Head {
    fn of(mut bytes: &[u8]) -> Self {
        const BEGIN: &[u8] = b"HTTP/1.";
        loop {
            let begun = bytes.len().min(BEGIN.len());
            if bytes[..begun] != BEGIN[..begun] {
                return Self::Foreign;
            }
            let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                return Self::More;
            };
            let line = String::from_utf8_lossy(&bytes[..end]);
            let status = line.split_ascii_whitespace().nth(1);
            let status = status.filter(|digits| digits.len() == 3);
            match status.and_then(|digits| digits.parse::<u16>().ok()) {
                // An interim answer; the one that counts comes behind it.
                Some(100..200) => match after_head(bytes) {
                    Some(rest) => bytes = rest,
                    None => return Self::More,
                },
                Some(status @ 200..1000) => return Self::Status(status),
                _ => return Self::Foreign,
            }
        }
    }
}

fn after_head(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    bytes.get(end + 4..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_found_however_the_answer_comes() {
        let whole = b"HTTP/1.1 204 No Content\r\nDate: today\r\n\r\n";
        for length in 0..whole.len() {
            let expected = if length > whole.iter().position(|b| *b == b'\n').unwrap() {
                Head::Status(204)
            } else {
                Head::More
            };
            assert_eq!(Head::of(&whole[..length]), expected, "{length}");
        }
        let interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 500 No\r\n";
        assert_eq!(Head::of(interim), Head::Status(500));
        assert_eq!(Head::of(&interim[..30]), Head::More);
        assert_eq!(Head::of(b"HTTP/1.0 302\r\n"), Head::Status(302));
        for foreign in [
            &b"SSH-2.0-OpenSSH\r\n"[..],
            b"HTTP/2 200\r\n",
            b"HTTP/1.1 99\r\n",
            b"HTTP/1.1 +20\r\n",
            b"HTTP/1.1 abc\r\n",
            b"HTTP/1.1\r\n",
            b"\x15\x03\x01",
        ] {
            assert_eq!(Head::of(foreign), Head::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn the_host_is_what_was_asked() {
        let host = |host| request(host, 80, "/x?y").lines().nth(1).unwrap().to_owned();
        assert_eq!(host("127.0.0.1"), "Host: localhost:80");
        assert_eq!(host("10.0.0.7"), "Host: 10.0.0.7:80");
        assert_eq!(host("fd00::7"), "Host: [fd00::7]:80");
        assert!(request("a", 80, "/x?y").starts_with("GET /x?y HTTP/1.1\r\n"));
    }
}
