//! The last value of each key: what a compacted log's records fold into.
//!
//! Coordinators keep their durable state so (Kafka's own record formats, in `__consumer_offsets`): a record without a value forgets its
//! key. What keys and values mean is the coordinator's business, which reads them when it starts to lead.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::state_bytes::{Reader, StateError, Writer};

type KeyAndValue = (Box<[u8]>, Box<[u8]>);

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastValues {
    values: BTreeMap<Box<[u8]>, Box<[u8]>>,
    bytes: u64,
}

impl LastValues {
    /// Folds one record in.
    pub fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        let before = match value {
            Some(value) => {
                self.bytes += size(key, value);
                self.values.insert(key.into(), value.into())
            }
            None => self.values.remove(key),
        };
        if let Some(before) = before {
            self.bytes -= size(key, &before);
        }
    }

    /// A key's last value.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(key).map(AsRef::as_ref)
    }

    /// The keys that begin with `prefix`, and their values, in the order of the keys.
    pub fn with_prefix<'a>(&'a self, prefix: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let from = self.values.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        from.map(|(key, value)| (&**key, &**value)).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The keys behind `key`, or all, and their values, in the order of the keys.
    pub fn behind(&self, key: Option<&[u8]>) -> impl Iterator<Item = (&[u8], &[u8])> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.values.range::<[u8], _>((from, Bound::Unbounded)).map(|(key, value)| (&**key, &**value))
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes everything.
    pub fn write(&self, out: &mut Writer) {
        out.count(self.values.len());
        for (key, value) in &self.values {
            for bytes in [key, value] {
                out.count(bytes.len());
                out.raw(bytes);
            }
        }
    }

    /// Reads what [`LastValues::write`] wrote.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn read(from: &mut Reader<'_>) -> Result<Self, StateError> {
        let count = from.count(8, "keys")?;
        let mut values: Vec<KeyAndValue> = Vec::with_capacity(count);
        let mut bytes = 0;
        for _ in 0..count {
            let key = from.bytes("key")?;
            let value = from.bytes("value")?;
            if values.last().is_some_and(|(last, _)| **last >= *key) {
                return Err(StateError::Invalid("order of keys"));
            }
            bytes += size(key, value);
            values.push((key.into(), value.into()));
        }
        // In order, so that the tree is built from below, each node full.
        Ok(Self { values: values.into_iter().collect(), bytes })
    }
}

fn size(key: &[u8], value: &[u8]) -> u64 {
    u64::try_from(key.len() + value.len()).expect("a length fits")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn under(values: &LastValues, prefix: &[u8]) -> Vec<u8> {
        values.with_prefix(prefix).map(|(_, value)| value[0]).collect()
    }

    #[test]
    fn the_last_value_of_each_key_stays() {
        let mut values = LastValues::default();
        for (key, value) in
            [(&b"a1"[..], Some(&b"1"[..])), (b"a2", Some(b"2")), (b"b", Some(b"3")), (b"a1", Some(b"4"))]
        {
            values.put(key, value);
        }
        assert_eq!(values.get(b"a1"), Some(&b"4"[..]));
        assert_eq!(
            (under(&values, b"a"), under(&values, b"b"), under(&values, b"c")),
            (vec![4 + b'0', b'2'], vec![b'3'], vec![])
        );
        assert_eq!(values.bytes(), 8);
        let behind = |key: Option<&[u8]>| values.behind(key).map(|(_, value)| value[0] - b'0').collect::<Vec<_>>();
        assert_eq!((behind(None), behind(Some(b"a1")), behind(Some(b"b"))), (vec![4, 2, 3], vec![2, 3], vec![]));
        values.put(b"a1", None);
        values.put(b"nobody", None);
        assert_eq!((values.get(b"a1"), under(&values, b""), values.bytes()), (None, vec![b'2', b'3'], 5));
    }

    #[test]
    fn what_is_written_is_read_again_and_cut_bytes_are_refused() {
        let mut values = LastValues::default();
        values.put(b"", Some(b"value"));
        values.put(b"key", Some(b""));
        let mut out = Writer::default();
        values.write(&mut out);
        let bytes = out.finish();
        let mut from = Reader::new(&bytes);
        assert_eq!(LastValues::read(&mut from), Ok(values));
        assert_eq!(from.end(), Ok(()));
        for cut in 0..bytes.len() {
            assert!(LastValues::read(&mut Reader::new(&bytes[..cut])).is_err(), "{cut}");
        }
        let twice = [0, 0, 0, 2, 0, 0, 0, 1, b'k', 0, 0, 0, 0, 0, 0, 0, 1, b'k', 0, 0, 0, 0];
        assert!(LastValues::read(&mut Reader::new(&twice[..13])).is_err(), "one of two is missing");
        assert_eq!(LastValues::read(&mut Reader::new(&twice)), Err(StateError::Invalid("order of keys")));
    }
}
