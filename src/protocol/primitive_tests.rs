use super::*;

const CLASSIC: At = At { version: 0, flexible: false, nullable: true };
const FLEXIBLE: At = At { version: 0, flexible: true, nullable: true };

fn reader(bytes: &[u8]) -> Reader {
    Reader::new(Bytes::copy_from_slice(bytes), 1 << 20)
}

fn written(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.into_chunks().concat()
}

#[test]
fn varints_read_back_and_stop_at_32_bits() {
    for value in [0, 1, 127, 128, 16383, 16384, u32::MAX >> 1, u32::MAX] {
        assert_eq!(reader(&written(|w| w.varint(value))).varint(), Ok(value));
    }
    assert_eq!(reader(&[0xff, 0xff, 0xff, 0xff, 0x1f]).varint(), Err(DecodeError::Varint));
    assert_eq!(reader(&[0x80; 9]).varint(), Err(DecodeError::Varint));
    assert_eq!(reader(&[0x80]).varint(), Err(DecodeError::Truncated { missing: 1 }));
}

#[test]
fn null_and_empty_differ_in_both_encodings() {
    for at in [CLASSIC, FLEXIBLE] {
        for text in [None, Some(""), Some("ä")] {
            let bytes = written(|w| w.text(at, text).unwrap());
            assert_eq!(reader(&bytes).text(at).unwrap().as_deref(), text);
        }
        let null = written(|w| w.text(at, None).unwrap());
        assert_eq!(reader(&null).text(At { nullable: false, ..at }), Err(DecodeError::Null));
    }
}

#[test]
fn a_string_is_utf8_and_no_longer_than_kafka_allows() {
    assert_eq!(reader(&[0, 1, 0xff]).text(CLASSIC), Err(DecodeError::NotUtf8));
    let long = "x".repeat(32768);
    assert_eq!(Writer::default().text(FLEXIBLE, Some(&long)), Err(EncodeError::TooLong(32768)));
    let mut bytes = written(|w| w.varint(32769));
    bytes.extend_from_slice(long.as_bytes());
    assert_eq!(reader(&bytes).text(FLEXIBLE), Err(DecodeError::TextTooLong(32768)));
}

#[test]
fn a_count_is_not_believed_before_the_bytes_are_there() {
    let hostile = [0x7f, 0xff, 0xff, 0xff, 0, 0];
    assert!(matches!(reader(&hostile).count(CLASSIC, 1, 8), Err(DecodeError::Count { remaining: 2, .. })));
    assert_eq!(
        Reader::new(Bytes::from_static(&[0, 0, 0, 2, 1, 1]), 15).count(CLASSIC, 1, 8),
        Err(DecodeError::TooMuchMemory)
    );
    assert_eq!(Reader::new(Bytes::from_static(&[0, 0, 0, 2, 1, 1]), 16).count(CLASSIC, 1, 8), Ok(Some(2)));
}

#[test]
fn tags_are_read_within_their_size_and_unknown_ones_skipped() {
    let known = |r: &mut Reader, tag: u32| if tag == 1 { r.i16().map(|_| true) } else { Ok(false) };
    assert_eq!(reader(&[2, 0, 3, 9, 9, 9, 1, 2, 0, 7]).tags(known), Ok(()));
    assert_eq!(reader(&[1, 1, 3, 0, 7, 7]).tags(known), Err(DecodeError::TagSize { tag: 1, extra: 1 }));
    assert_eq!(reader(&[1, 1, 1, 0, 7]).tags(known), Err(DecodeError::Truncated { missing: 1 }));
    assert_eq!(reader(&[1, 0, 9, 0]).tags(known), Err(DecodeError::Truncated { missing: 8 }));
    assert_eq!(reader(&[0x81, 2, 0, 0]).tags(known), Err(DecodeError::Tags(257)));
}

#[test]
fn a_tagged_field_has_its_size_in_front_whatever_its_length() {
    for length in [0, 127, 128, 300] {
        let bytes = written(|w| {
            w.varint(1);
            w.tagged(1, |w| w.text(FLEXIBLE, Some(&"y".repeat(length)))).unwrap();
        });
        let mut seen = None;
        let mut r = reader(&bytes);
        r.tags(|r, _| {
            r.text(FLEXIBLE).map(|text| {
                seen = text;
                true
            })
        })
        .unwrap();
        assert_eq!(seen.unwrap().len(), length);
        assert!(r.rest().is_empty());
    }
}

#[test]
fn records_leave_as_the_slices_they_came_in() {
    let (big, small) = (Bytes::from(vec![1; 4096]), Bytes::from_static(b"tiny"));
    let records = Records::from(vec![big.clone(), small.clone(), big.clone()]);
    let mut writer = Writer::default();
    writer.i32(0);
    writer.records(CLASSIC, Some(&records)).unwrap();
    writer.patch_front(7);
    assert_eq!(writer.len(), 8 + 2 * 4096 + 4);
    let chunks = writer.into_chunks();
    assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [8, 4096, 4, 4096]);
    assert!(chunks.iter().filter(|chunk| chunk.as_ptr() == big.as_ptr()).count() == 2, "shared, not copied");
    let all = chunks.concat();
    assert_eq!(all[..4], [0, 0, 0, 7]);
    let mut r = reader(&all[4..]);
    assert_eq!(r.records(CLASSIC), Ok(Some(records)));
}
