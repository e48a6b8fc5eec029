//! How large things are once they are written as MessagePack.

use std::io::{self, Write};

use serde::Serialize;

/// Bytes of a value as MessagePack with field names.
pub(crate) fn size_of<T: Serialize>(value: &T) -> usize {
    let mut count = Count(0);
    // What cannot be written is refused where it is sent.
    drop(rmp_serde::encode::write_named(&mut count, value));
    count.0
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
