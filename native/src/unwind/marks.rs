//! Marks of arm64 in the call frames that gimli takes for damage.

use std::borrow::Cow;

/// Signed with the B key; with memory tags.  Neither changes where anything is saved.
const MARKS: [u8; 2] = *b"BG";

/// Takes the marks out of the augmentation strings; what follows them moves down, with a nop at the end.
///
/// An entry is `{u32 length, or 0xffffffff and u64 length; u32 or u64 id}`, one that others refer to goes on
/// with `{u8 version; char augmentation[]}`.
pub fn without_marks(bytes: &[u8], is_eh_frame: bool, big_endian: bool) -> Cow<'_, [u8]> {
    let mut result = Cow::Borrowed(bytes);
    let mut at = 0;
    while let Some((id_at, is_long, end)) = entry(bytes, at, big_endian) {
        let id_bytes = if is_long && !is_eh_frame { 8 } else { 4 };
        let common_id = if is_eh_frame { 0 } else { 0xff };
        let is_common =
            bytes[id_at..end].get(..id_bytes).is_some_and(|id| id.iter().all(|b| *b == common_id));
        let text_at = (id_at + id_bytes + 1).min(end);
        if is_common && let Some(len) = bytes[text_at..end].iter().position(|byte| *byte == 0) {
            for place in (text_at..text_at + len).rev().filter(|place| MARKS.contains(&bytes[*place])) {
                let entry = &mut result.to_mut()[place..end];
                entry.rotate_left(1);
                entry[end - place - 1] = 0;
            }
        }
        at = end;
    }
    result
}

/// Where an entry's ID is, whether its length has 64 bits, and where it ends; None after the last one.
fn entry(bytes: &[u8], at: usize, big_endian: bool) -> Option<(usize, bool, usize)> {
    let word = |at: usize| {
        let word: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) })
    };
    let is_long = word(at)? == u32::MAX;
    let (id_at, len) = if is_long {
        let (first, second) = (u64::from(word(at + 4)?), u64::from(word(at + 8)?));
        (at + 12, if big_endian { first << 32 | second } else { second << 32 | first })
    } else {
        (at + 4, u64::from(word(at)?))
    };
    let end = id_at.checked_add(usize::try_from(len).ok()?)?;
    (len > 0 && end <= bytes.len()).then_some((id_at, is_long, end))
}
