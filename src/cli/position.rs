//! Where to begin in a partition, as a person writes it: `start`, `end`, `47`, `+5`, `-5`, `@1700000000000`.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::client::{Client, ClientError, ListOffsets};
use crate::protocol::messages::metadata::MetadataResponseTopic;

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The first record that is still there.
    Start,
    /// Behind the last record.
    End,
    /// That offset.
    Offset(i64),
    /// So many records behind the start.
    AfterStart(i64),
    /// So many records before the end.
    BeforeEnd(i64),
    /// The first record of that time or later, in milliseconds since the epoch; the end where there is none.
    Time(i64),
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| match digits.parse::<i64>() {
            Ok(number) if number >= 0 && digits.starts_with(|c: char| c.is_ascii_digit()) => Ok(number),
            _ => Err(format!("{text:?} is none of start, end, OFFSET, +N, -N, @MILLISECONDS")),
        };
        match text {
            "start" | "beginning" | "earliest" | "oldest" => Ok(Self::Start),
            "end" | "latest" | "newest" => Ok(Self::End),
            _ => match text.split_at_checked(1) {
                Some(("+", rest)) => Ok(Self::AfterStart(number(rest)?)),
                Some(("-", rest)) => Ok(Self::BeforeEnd(number(rest)?)),
                Some(("@", rest)) => Ok(Self::Time(number(rest)?)),
                _ => Ok(Self::Offset(number(text)?)),
            },
        }
    }
}

impl Position {
    /// The offset that it is in each of the partitions, now.
    ///
    /// # Errors
    /// If a leader does not say.
    pub async fn resolve(
        self,
        client: &mut Client,
        topic: &MetadataResponseTopic,
        partitions: &[i32],
    ) -> Result<BTreeMap<i32, i64>, ClientError> {
        if let Self::Offset(offset) = self {
            return Ok(partitions.iter().map(|partition| (*partition, offset)).collect());
        }
        let start = client.list_offsets(topic, partitions, ListOffsets::Start).await?;
        let end = client.list_offsets(topic, partitions, ListOffsets::End).await?;
        let at_time = match self {
            Self::Time(time) => client.list_offsets(topic, partitions, ListOffsets::Time(time)).await?,
            _ => BTreeMap::new(),
        };
        let offset = |partition: &i32| {
            let (start, end) = (start[partition].offset, end[partition].offset);
            let offset = match self {
                Self::Start => start,
                Self::End => end,
                Self::Offset(offset) => offset,
                Self::AfterStart(records) => start.saturating_add(records).min(end),
                Self::BeforeEnd(records) => end.saturating_sub(records).max(start),
                Self::Time(_) => match at_time[partition].offset {
                    offset if offset < 0 => end,
                    offset => offset,
                },
            };
            (*partition, offset)
        };
        Ok(partitions.iter().map(offset).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        assert_eq!("start".parse(), Ok(Position::Start));
        assert_eq!("end".parse(), Ok(Position::End));
        assert_eq!("47".parse(), Ok(Position::Offset(47)));
        assert_eq!("+2".parse(), Ok(Position::AfterStart(2)));
        assert_eq!("-3".parse(), Ok(Position::BeforeEnd(3)));
        assert_eq!("@1700000000000".parse(), Ok(Position::Time(1_700_000_000_000)));
        for bad in ["", "x", "--3", "+-3", "@", "1.5", "++1", "ö"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }
}
