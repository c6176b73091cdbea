//! What recovery may make of the files it finds: each byte of a segment is still there, superseded, purged, or named in the report.

use std::collections::BTreeMap;

use super::super::disk::{Disk, Open};
use super::super::name::{CUT, LOG, SegmentName};
use super::super::segment::path;
use super::super::test_kit::PARTITION;
use super::super::{Log, Recovered, directory};
use crate::ids::LogId;

/// Segment files, with their bytes up to the last that is not zero.
pub(super) type Files = BTreeMap<SegmentName, u64>;

pub(super) fn list(disk: &dyn Disk) -> std::io::Result<Files> {
    let dir = directory(PARTITION);
    let entries = match disk.list(&dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Files::new()),
        other => other?,
    };
    let mut files = Files::new();
    for entry in entries {
        let Some(name) = entry.name.strip_suffix(LOG).and_then(SegmentName::parse) else { continue };
        let file = disk.open(&path(&dir, name, LOG), Open::ReadOnly)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).expect("a small file")];
        file.read_at(0, &mut bytes)?;
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        files.insert(name, u64::try_from(used).expect("a length"));
    }
    Ok(files)
}

/// Checks a recovery that found `before`. `anew`: where the log had to begin anew, whatever its files held.
pub(super) fn check(
    before: &Files,
    disk: &dyn Disk,
    log: &Log,
    recovered: &Recovered,
    anew: Option<LogId>,
) -> Result<(), String> {
    let segments = log.segments();
    let state = log.state();
    if anew.is_some() && anew == state.purged && anew == state.last {
        return Ok(());
    }
    let cut = recovered.cut.as_ref();
    let mut unnamed = cut.map_or(0, |cut| cut.bytes);
    for (name, used) in before {
        let after =
            segments.iter().position(|it| (it.first_index, it.base_offset) == (name.first_index, name.first_offset));
        let superseded = before.keys().any(|it| it.generation > name.generation && it.first_index <= name.first_index);
        let purged = state.purged.is_some_and(|purged| {
            let next = before.keys().filter(|it| it.first_index > name.first_index).min();
            next.is_some_and(|next| next.first_index <= purged.index.next())
        });
        let file = path(&directory(PARTITION), *name, LOG);
        match after.map(|number| (&segments[number], segments.get(number + 1))) {
            _ if superseded || (purged && after.is_none()) => {}
            Some((segment, next)) => {
                let gone = used.saturating_sub(segment.size_bytes);
                let ends = before.keys().any(|it| {
                    it.generation > name.generation && next.is_some_and(|next| next.first_index == it.first_index)
                });
                let named = cut.is_some_and(|cut| cut.path == file && cut.position == segment.size_bytes);
                if gone > 0 && !ends && !(named && unnamed >= gone) {
                    return Err(format!("{gone} bytes of {file} cut without a word: {recovered:?}"));
                }
                unnamed = unnamed.saturating_sub(if ends { 0 } else { gone });
            }
            None => {
                let aside = disk.open(&path(&directory(PARTITION), *name, CUT), Open::ReadOnly).is_ok();
                let named = cut.is_some_and(|cut| cut.path == file && cut.position == 0);
                if *used > 0 && !((aside || named) && unnamed >= *used) {
                    return Err(format!("{file} with {used} bytes is gone without a word: {recovered:?}"));
                }
                unnamed = unnamed.saturating_sub(*used);
            }
        }
    }
    Ok(())
}
