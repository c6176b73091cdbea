//! Cuts a stream of bytes into lines of bounded length.

use bytes::{Buf, Bytes, BytesMut};

use crate::cli::connect::Failure;

/// The longest line that is read; brokers take far less.
const LINE_MAX_BYTES: usize = 128 << 20;

/// Bytes that have come and lines that have not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end.
    searched: usize,
    taken: u64,
}

impl Lines {
    /// Adds bytes; all whole lines of those before have been taken.
    pub(super) fn push(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        if self.buffer.len() + chunk.len() > LINE_MAX_BYTES {
            let line = self.taken + 1;
            return Err(Failure::Usage(format!("line {line} is longer than {LINE_MAX_BYTES} bytes")));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The next line, without its end.
    pub(super) fn next_line(&mut self) -> Option<Bytes> {
        let Some(more) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            return None;
        };
        let line = self.buffer.split_to(self.searched + more).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        self.taken += 1;
        Some(line)
    }

    /// The last line, if it has no end.
    pub(super) fn rest(self) -> Option<Bytes> {
        (!self.buffer.is_empty()).then(|| self.buffer.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_they_come() {
        for size in 1..8 {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in b"a\n\nlonger line\r\nlast".chunks(size) {
                lines.push(chunk).unwrap();
                got.extend(std::iter::from_fn(|| lines.next_line()));
            }
            got.extend(lines.rest());
            assert_eq!(got, ["a", "", "longer line\r", "last"]);
        }
        assert_eq!(Lines::default().rest(), None);
    }
}
