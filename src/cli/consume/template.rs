//! How a record is printed: a template of `%` letters, or JSON.

use std::io::{self, Write};
use std::str::FromStr;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::protocol::batch::BatchHeader;
use crate::protocol::record::Record;

/// A record with all that is known of it.
pub(super) struct Printed<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) batch: &'a BatchHeader,
    pub(super) record: &'a Record,
    /// Where the partition began, was stable and was committed to when the record was fetched.
    pub(super) log_start: i64,
    pub(super) last_stable: i64,
    pub(super) high_watermark: i64,
}

/// What `--format` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Template {
    /// A JSON object on a line.
    Json,
    /// Pieces in order.
    Pieces(Vec<Piece>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Vec<u8>),
    /// A number or name of the record, by its letter.
    Field(char),
    Key(Encoding),
    Value(Encoding),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Raw,
    Hex,
    Base64,
}

const FIELDS: &str = "tpoedhHKVaxy[|]";

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            let piece = match c {
                '\\' => {
                    plain.push(escape(&mut rest)?);
                    continue;
                }
                '%' => match rest.next().ok_or("a lone % at the end: %% is a percent sign")? {
                    '%' => {
                        plain.push(b'%');
                        continue;
                    }
                    'k' => Piece::Key(encoding(&mut rest)?),
                    'v' => Piece::Value(encoding(&mut rest)?),
                    field if FIELDS.contains(field) => Piece::Field(field),
                    other => return Err(format!("%{other} stands for nothing; see --help")),
                },
                other => {
                    plain.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    continue;
                }
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(piece);
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self::Pieces(pieces))
    }
}

fn escape(rest: &mut std::str::Chars<'_>) -> Result<u8, String> {
    match rest.next() {
        Some('n') => Ok(b'\n'),
        Some('r') => Ok(b'\r'),
        Some('t') => Ok(b'\t'),
        Some('0') => Ok(0),
        Some('\\') => Ok(b'\\'),
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            u8::from_str_radix(&digits, 16).map_err(|_| format!("\\x{digits}: two hexadecimal digits are wanted"))
        }
        Some(other) => Err(format!("\\{other} stands for nothing: there are \\n \\r \\t \\0 \\\\ \\xHH")),
        None => Err("a lone backslash at the end".to_owned()),
    }
}

fn encoding(rest: &mut std::str::Chars<'_>) -> Result<Encoding, String> {
    let Some(inside) = rest.as_str().strip_prefix('{') else { return Ok(Encoding::Raw) };
    let (name, behind) = inside.split_once('}').ok_or("a { without its }")?;
    let encoding = match name {
        "hex" => Encoding::Hex,
        "base64" => Encoding::Base64,
        _ => return Err(format!("{{{name}}} stands for nothing: there are {{hex}} and {{base64}}")),
    };
    *rest = behind.chars();
    Ok(encoding)
}

impl Template {
    /// Prints a record.
    pub(super) fn print(&self, out: &mut impl Write, printed: &Printed<'_>) -> io::Result<()> {
        match self {
            Self::Json => writeln!(out, "{}", as_json(printed)),
            Self::Pieces(pieces) => pieces.iter().try_for_each(|piece| print_piece(out, piece, printed)),
        }
    }
}

fn print_piece(out: &mut impl Write, piece: &Piece, printed: &Printed<'_>) -> io::Result<()> {
    let record = printed.record;
    match piece {
        Piece::Text(text) => out.write_all(text),
        Piece::Key(encoding) => print_bytes(out, record.key.as_ref(), *encoding),
        Piece::Value(encoding) => print_bytes(out, record.value.as_ref(), *encoding),
        Piece::Field(letter) => print_field(out, *letter, printed),
    }
}

fn print_field(out: &mut impl Write, letter: char, printed: &Printed<'_>) -> io::Result<()> {
    let (record, batch) = (printed.record, printed.batch);
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(-1, |b| i64::try_from(b.len()).unwrap_or(i64::MAX));
    let number = match letter {
        't' => return out.write_all(printed.topic.as_bytes()),
        'h' => return print_headers(out, record),
        'p' => i64::from(printed.partition),
        'o' => record.offset,
        'e' => i64::from(batch.leader_epoch),
        'd' => record.timestamp,
        'H' => i64::try_from(record.headers.len()).unwrap_or(i64::MAX),
        'K' => length(&record.key),
        'V' => length(&record.value),
        'a' => i64::from(batch.attributes),
        'x' => batch.producer_id,
        'y' => i64::from(batch.producer_epoch),
        '[' => printed.log_start,
        '|' => printed.last_stable,
        ']' => printed.high_watermark,
        other => unreachable!("the template was read with letter {other}"),
    };
    write!(out, "{number}")
}

fn print_headers(out: &mut impl Write, record: &Record) -> io::Result<()> {
    for (at, header) in record.headers.iter().enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        out.write_all(&header.key)?;
        out.write_all(b"=")?;
        out.write_all(header.value.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

fn print_bytes(out: &mut impl Write, bytes: Option<&Bytes>, encoding: Encoding) -> io::Result<()> {
    let bytes = bytes.map(Bytes::as_ref).unwrap_or_default();
    match encoding {
        Encoding::Raw => out.write_all(bytes),
        Encoding::Hex => bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
        Encoding::Base64 => out.write_all(base64(bytes).as_bytes()),
    }
}

/// Keys and values that are text stand in `key` and `value`; others, in base64, in `key_base64` and `value_base64`.
fn as_json(printed: &Printed<'_>) -> Value {
    let record = printed.record;
    let header = |header: &crate::protocol::record::Header| {
        let mut object = json!({"name": String::from_utf8_lossy(&header.key)});
        put(&mut object, "value", header.value.as_ref());
        object
    };
    let mut object = json!({
        "topic": printed.topic, "partition": printed.partition, "offset": record.offset, "timestamp": record.timestamp,
        "leader_epoch": printed.batch.leader_epoch, "headers": record.headers.iter().map(header).collect::<Vec<_>>(),
    });
    put(&mut object, "key", record.key.as_ref());
    put(&mut object, "value", record.value.as_ref());
    object
}

fn put(object: &mut Value, name: &str, bytes: Option<&Bytes>) {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => object[name] = Value::Null,
        Some((_, Ok(text))) => object[name] = text.into(),
        Some((bytes, Err(_))) => object[format!("{name}_base64")] = base64(bytes).into(),
    }
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        for (at, shift) in [18, 12, 6, 0].into_iter().enumerate() {
            let digit = DIGITS[(bits >> shift & 0x3f) as usize];
            text.push(if at > group.len() { '=' } else { char::from(digit) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::compression::Compression;
    use crate::protocol::record::{BatchBuilder, NewRecord, read_records};

    fn printed(template: &str, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let mut builder = BatchBuilder::new(Compression::None);
        let headers: [(&str, Option<&[u8]>); 2] = [("a", Some(b"1")), ("b", None)];
        builder.push(&NewRecord { timestamp: 7, key, value, headers: &headers });
        let mut records = read_records(&builder.build(), 1 << 20).unwrap();
        let record = records.next().unwrap().unwrap();
        let printed = Printed {
            topic: "t",
            partition: 3,
            batch: records.header(),
            record: &record,
            log_start: 1,
            last_stable: 2,
            high_watermark: 4,
        };
        let mut out = Vec::new();
        template.parse::<Template>().unwrap().print(&mut out, &printed).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_letter_stands_for_its_field() {
        assert_eq!(printed(r"%t %p %o %k %v\n", Some(b"k"), Some(b"v")), "t 3 0 k v\n");
        assert_eq!(printed("%e %d %h %H %K %V %a %x %y", None, Some(b"val")), "-1 7 a=1,b= 2 -1 3 0 -1 -1");
        assert_eq!(printed(r"%[ %| %] %% \t\\\x41", None, None), "1 2 4 % \t\\A");
        assert_eq!(printed("%k{hex}%v{base64}", Some(b"\x01\xff"), Some(b"any")), "01ffYW55");
    }

    #[test]
    fn json_keeps_bytes_that_are_no_text() {
        let value: Value = serde_json::from_str(&printed("json", None, Some(b"\xff"))).unwrap();
        assert_eq!(value["key"], Value::Null);
        assert_eq!(value["value_base64"], "/w==");
        assert_eq!(value["headers"][0], json!({"name": "a", "value": "1"}));
        assert_eq!(value["offset"], 0);
    }

    #[test]
    fn a_template_that_means_nothing_is_refused() {
        for bad in ["%", "%q", r"\", r"\q", r"\xg1", "%k{", "%k{rot13}"] {
            assert!(bad.parse::<Template>().is_err(), "{bad}");
        }
    }
}
