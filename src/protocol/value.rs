//! The two values of the wire that share memory with the frame they came in: text and record batches.
//!
//! Both pin their whole frame for as long as they live: what is kept after the request is answered must be copied
//! ([`Text::detached`]). Invariant: the bytes of a [`Text`] are UTF-8; every way to make one checks it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

use bytes::Bytes;

/// A string that shares memory with its frame; cloning it costs no copy.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Text(Bytes);

impl Text {
    /// The bytes as text, or `None` when they are not UTF-8.
    #[must_use]
    pub fn from_utf8(bytes: Bytes) -> Option<Self> {
        std::str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    /// Text that lives as long as the program.
    #[must_use]
    pub fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("checked when the text was made")
    }

    /// Its bytes' count. (That of `str` would look at each byte first: [`Text::as_str`] checks them again.)
    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy that no longer pins the frame.
    #[must_use]
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

/// Hash, order and equality are those of `str` (for UTF-8 the order of bytes is the order of text).
impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Record batches as they lie on the wire: one slice after a decode, as many as the log's files gave for a reply.
///
/// Equality is that of the bytes, however they are cut.
#[derive(Clone, Default)]
pub struct Records {
    // One slice is the usual case and costs no allocation.
    first: Bytes,
    more: Vec<Bytes>,
}

impl Records {
    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slices().map(Bytes::len).sum()
    }

    /// Whether there is no byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices().all(Bytes::is_empty)
    }

    /// The slices in order.
    pub fn slices(&self) -> impl Iterator<Item = &Bytes> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// All bytes in one slice; copies only when there are several.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            return self.first;
        }
        let mut all = Vec::with_capacity(self.len());
        self.slices().for_each(|slice| all.extend_from_slice(slice));
        Bytes::from(all)
    }
}

impl From<Bytes> for Records {
    fn from(slice: Bytes) -> Self {
        Self { first: slice, more: Vec::new() }
    }
}

impl From<Vec<Bytes>> for Records {
    fn from(mut slices: Vec<Bytes>) -> Self {
        match slices.len() {
            0 => Self::default(),
            1 => Self::from(slices.swap_remove(0)),
            _ => Self { first: Bytes::new(), more: slices },
        }
    }
}

impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.slices().flatten().eq(other.slices().flatten())
    }
}

impl Eq for Records {}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of records", self.len())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn text_is_found_by_str_and_refuses_what_is_not_utf8() {
        let map = BTreeMap::from([(Text::from("ö"), 1), (Text::from("a"), 2)]);
        assert_eq!(map.get("ö"), Some(&1));
        assert!(Text::from_utf8(Bytes::from_static(b"\xff")).is_none());
        assert_eq!(Text::from("a").detached(), "a");
    }

    #[test]
    fn records_are_equal_however_they_are_cut() {
        let whole = Records::from(Bytes::from_static(b"abcd"));
        let cut = Records::from(vec![Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"bcd")]);
        assert_eq!(whole, cut);
        assert_eq!(cut.len(), 4);
        assert_eq!(cut.into_bytes(), "abcd");
        assert!(Records::from(Vec::new()).is_empty());
    }
}
