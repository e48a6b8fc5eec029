//! The last lines of a run.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::{Line, held, parse, place, segment};

/// How much of a file is read at first; twice that if it is not enough, and so on.
const WINDOW: u64 = 64 * 1024;

/// The last `count` lines of the run in this directory, oldest first, pieces joined; it blocks on
/// the disk. `NotFound` if the run never started.
pub fn tail(directory: &Path, count: usize) -> io::Result<Vec<Line>> {
    let place = place(directory)?;
    let mut found = VecDeque::new();
    // Newest first. A file that is rotated or removed meanwhile is only missing.
    let ends = segment::ends(&place.current);
    let base = ends.last().copied().unwrap_or(0);
    let mut files = vec![(place.current.clone(), None)];
    for end in ends.into_iter().rev() {
        files.push((segment::name(&place.current, end), Some(end)));
    }
    for (path, end) in files {
        let missing = count.saturating_sub(whole(&found));
        if missing == 0 || end.is_some_and(|end| end <= place.base) {
            break;
        }
        let Ok(file) = held::read(&path) else {
            continue;
        };
        let size = file.metadata()?.len();
        let begin = end.map_or(base, |end| end.saturating_sub(size));
        for line in last_lines(file, size, begin, missing)?.into_iter().rev() {
            let after = place.end.is_some_and(|end| line.offset >= end);
            if line.offset >= place.base && !after {
                found.push_front(line);
            }
        }
    }
    let mut lines = join(found);
    lines.drain(..lines.len().saturating_sub(count));
    for line in &mut lines {
        line.offset -= place.base;
    }
    Ok(lines)
}

/// The end of a file, with at least `count` whole lines if it has them.
fn last_lines(mut file: File, size: u64, begin: u64, count: usize) -> io::Result<Vec<Line>> {
    let mut window = WINDOW;
    loop {
        let from = size.saturating_sub(window);
        file.seek(SeekFrom::Start(from))?;
        let mut reader = BufReader::new((&file).take(size - from));
        let mut offset = begin + from;
        let mut lines = Vec::new();
        let mut bytes = Vec::new();
        let mut first = from > 0;
        while reader.read_until(b'\n', &mut bytes)? > 0 {
            let length = bytes.len() as u64;
            if bytes.pop_if(|byte| *byte == b'\n').is_some() && !first {
                lines.extend(parse::line(&bytes, offset));
            }
            first = false;
            offset += length;
            bytes.clear();
        }
        if from == 0 || lines.iter().filter(|line| !line.partial).count() > count {
            return Ok(lines);
        }
        window *= 2;
    }
}

fn whole(lines: &VecDeque<Line>) -> usize {
    lines.iter().filter(|line| !line.partial).count()
}

/// Puts the pieces of a line together where they belong to one stream.
fn join(pieces: VecDeque<Line>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let open = lines.iter().rposition(|line| line.stream == piece.stream);
        match open.map(|at| &mut lines[at]) {
            Some(line) if line.partial => {
                line.text.push_str(&piece.text);
                line.partial = piece.partial;
            }
            _ => lines.push(piece),
        }
    }
    lines
}
