use proptest::prelude::*;

use super::*;
use crate::testing::{assign, epoch, name, progress, report};
use loom_schemas::words::RunState;

fn written() -> (Vec<u8>, Ledger, Vec<usize>) {
    let mut ledger = Ledger::new(name("node-1"), 10);
    let mut bytes = head(&ledger.node);
    let mut ends = vec![bytes.len()];
    let records = [
        Record::Assign(assign(epoch(1, 1), None, 1, &[1, 2], &[])),
        Record::Report {
            report: report(1, 1, RunState::Running),
            progress: progress(1, 1, RunState::Running),
        },
        Record::Contact {
            boot: "boot".into(),
            at_ms: 7,
        },
    ];
    for record in records {
        push_record(&mut bytes, &record).unwrap();
        ends.push(bytes.len());
        ledger.apply(record);
    }
    (bytes, ledger, ends)
}

#[test]
fn what_was_written_is_read() {
    let (bytes, ledger, _) = written();
    let contents = read(&bytes, 10).unwrap();
    assert_eq!(contents.ledger, ledger);
    assert_eq!(contents.good, bytes.len());
    assert_eq!(read(&whole(&ledger).unwrap(), 10).unwrap().ledger, ledger);
}

#[test]
fn a_record_that_was_cut_off_is_left_out() {
    let (bytes, _, ends) = written();
    let last = ends[ends.len() - 2];
    for end in last..bytes.len() {
        assert_eq!(read(&bytes[..end], 10).unwrap().good, last, "cut at {end}");
    }
    let mut with_holes = bytes.clone();
    with_holes.extend([0; 100]);
    assert_eq!(read(&with_holes, 10).unwrap().good, bytes.len());
}

#[test]
fn another_format_and_other_files_are_told_apart() {
    let (mut bytes, _, _) = written();
    bytes[8] = 9;
    assert_eq!(read(&bytes, 10).unwrap_err(), FrameError::Format(9));
    assert_eq!(
        read(b"something else", 10).unwrap_err(),
        FrameError::NotOurs
    );
    assert_eq!(read(b"", 10).unwrap_err(), FrameError::NotOurs);
}

proptest! {
    #[test]
    fn damage_before_the_last_record_is_noticed(at in 0usize..1000, bit in 0u8..8) {
        let (mut bytes, ledger, ends) = written();
        let last = ends[ends.len() - 2];
        let at = at % last;
        bytes[at] ^= 1 << bit;
        // A length that grew may look like a record that was cut off: nothing after it is believed.
        match read(&bytes, 10) {
            Ok(contents) => prop_assert!(contents.good < last && contents.ledger != ledger),
            Err(FrameError::Damaged(_) | FrameError::Format(_) | FrameError::NotOurs) => {}
        }
    }

    #[test]
    fn garbage_is_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut file = head(&name("node-1"));
        file.extend(&bytes);
        let _ = read(&bytes, 10);
        let _ = read(&file, 10);
    }
}
