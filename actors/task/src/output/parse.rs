//! Lines of an output file.

use jiff::Timestamp;

use super::{Line, Stream};

/// Reads one line of a file, without its break; none if it is not of the form.
pub(super) fn line(bytes: &[u8], offset: u64) -> Option<Line> {
    let mut parts = bytes.splitn(4, |byte| *byte == b' ');
    let mut text = || parts.next().and_then(|part| std::str::from_utf8(part).ok());
    let at: Timestamp = text()?.parse().ok()?;
    let stream = match text()? {
        "stdout" => Stream::Stdout,
        "stderr" => Stream::Stderr,
        _ => return None,
    };
    let partial = match text()? {
        "F" => false,
        "P" => true,
        _ => return None,
    };
    let text = String::from_utf8_lossy(parts.next()?).into_owned();
    Some(Line {
        at,
        stream,
        offset,
        text,
        partial,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_time_stream_tag_and_text() {
        let read = line(b"2026-01-02T03:04:05.000006Z stderr P a  b ", 7).unwrap();
        assert_eq!(read.stream, Stream::Stderr);
        assert_eq!(
            (read.text.as_str(), read.offset, read.partial),
            ("a  b ", 7, true)
        );
        assert_eq!(
            line(b"2026-01-02T03:04:05.000006Z stdout F ", 0)
                .unwrap()
                .text,
            ""
        );
        assert_eq!(
            line(b"2026-01-02T03:04:05Z stdout F \xff", 0).unwrap().text,
            "\u{fffd}"
        );
        for bad in [
            &b""[..],
            b"2026-01-02T03:04:05Z",
            b"2026-01-02T03:04:05Z x F a",
            b"x y z a",
        ] {
            assert_eq!(line(bad, 0), None);
        }
    }
}
