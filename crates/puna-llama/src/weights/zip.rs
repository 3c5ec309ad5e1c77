//! A zip archive whose entries are stored, not compressed, as PyTorch writes it: entries are ranges of the file.

use std::collections::HashMap;
use std::ops::Range;

use puna_bytes::{Reader, Result};

const END: u32 = 0x0605_4b50;
const END_64: u32 = 0x0606_4b50;
const END_64_LOCATOR: u32 = 0x0706_4b50;
const CENTRAL: u32 = 0x0201_4b50;
const LOCAL: u32 = 0x0403_4b50;
/// The end record without its comment, and the longest comment.
const END_BYTES: usize = 22;
const MOST_COMMENT_BYTES: usize = 0xffff;
/// The number of the extra field with 64-bit sizes.
const EXTRA_64: u16 = 1;

/// Where each entry's bytes lie, by its name.
///
/// Errors: no end record; counts and offsets that the file cannot back; compressed or encrypted entries; a name twice.
pub(super) fn entries(bytes: &[u8]) -> Result<HashMap<&str, Range<usize>>> {
    let directory = find_directory(bytes)?;
    let mut r = Reader::new(bytes);
    r.seek("central directory", directory.offset)?;
    let mut r = r.nested("central directory", directory.bytes)?;
    // The shortest entry: a header without name, extra fields and comment.
    let count = r.count("central directory", directory.entries, 46)?;
    let mut entries = HashMap::with_capacity(count);
    for _ in 0..count {
        let before = r.clone();
        let entry = central_entry(&mut r)?;
        let range = locate(bytes, &entry)?;
        if entries.insert(entry.name, range).is_some() {
            return Err(before.invalid("entry name", format!("{:?} comes twice", entry.name)));
        }
    }
    Ok(entries)
}

struct Directory {
    entries: u64,
    bytes: u64,
    offset: u64,
}

fn find_directory(bytes: &[u8]) -> Result<Directory> {
    let mut r = Reader::new(bytes);
    let first = bytes.len().saturating_sub(END_BYTES + MOST_COMMENT_BYTES);
    let signature = END.to_le_bytes();
    // The last record whose comment ends where the file ends.
    let found = (first..(bytes.len() + 1).saturating_sub(END_BYTES)).rev().find(|&at| {
        let comment = || usize::from(u16::from_le_bytes([bytes[at + 20], bytes[at + 21]]));
        bytes[at..].starts_with(&signature) && at + END_BYTES + comment() == bytes.len()
    });
    let Some(at) = found else {
        return Err(r.invalid("end of central directory", "not found: it is no zip archive, or it has been cut"));
    };
    r.seek("end of central directory", at as u64)?;
    r.skip("end of central directory", 4)?;
    let (disk, directory_disk) = (r.u16_le("disk")?, r.u16_le("directory disk")?);
    let (here, entries) = (r.u16_le("entries here")?, r.u16_le("entries")?);
    let (size, offset) = (r.u32_le("directory bytes")?, r.u32_le("directory offset")?);
    let is_64 = [disk, directory_disk, here, entries].contains(&0xffff) || [size, offset].contains(&u32::MAX);
    let locator = at.checked_sub(20).filter(|&at| bytes[at..].starts_with(&END_64_LOCATOR.to_le_bytes()));
    let Some(locator) = locator.filter(|_| is_64) else {
        if disk != 0 || directory_disk != 0 || here != entries {
            return Err(r.invalid("end of central directory", "the archive spans several disks"));
        }
        return Ok(Directory { entries: entries.into(), bytes: size.into(), offset: offset.into() });
    };
    r.seek("zip64 locator", locator as u64 + 8)?;
    let at = r.u64_le("zip64 end offset")?;
    r.seek("zip64 end", at)?;
    if r.u32_le("zip64 end signature")? != END_64 {
        return Err(r.invalid("zip64 end signature", "another record lies there"));
    }
    r.skip("zip64 end size and versions", 8 + 2 + 2)?;
    let (disk, directory_disk) = (r.u32_le("disk")?, r.u32_le("directory disk")?);
    let (here, entries) = (r.u64_le("entries here")?, r.u64_le("entries")?);
    if disk != 0 || directory_disk != 0 || here != entries {
        return Err(r.invalid("zip64 end", "the archive spans several disks"));
    }
    Ok(Directory { entries, bytes: r.u64_le("directory bytes")?, offset: r.u64_le("directory offset")? })
}

struct Entry<'a> {
    name: &'a str,
    bytes: u64,
    header_offset: u64,
}

fn central_entry<'a>(r: &mut Reader<'a>) -> Result<Entry<'a>> {
    let before = r.clone();
    if r.u32_le("entry signature")? != CENTRAL {
        return Err(before.invalid("entry signature", "another record lies there"));
    }
    r.skip("versions", 4)?;
    let flags = r.u16_le("flags")?;
    let method = r.u16_le("method")?;
    r.skip("time and checksum", 8)?;
    let (packed, size) = (r.u32_le("packed bytes")?, r.u32_le("bytes")?);
    let name_bytes = r.u16_le("name length")?;
    let (extra_bytes, comment_bytes) = (r.u16_le("extra length")?, r.u16_le("comment length")?);
    r.skip("disk and attributes", 2 + 2 + 4)?;
    let offset = r.u32_le("header offset")?;
    let name = r.str("entry name", name_bytes.into())?;
    let mut extra = r.nested("extra fields", extra_bytes.into())?;
    r.skip("comment", comment_bytes.into())?;

    let (mut packed, mut size, mut header_offset) = (u64::from(packed), u64::from(size), u64::from(offset));
    while !extra.is_empty() {
        let (id, length) = (extra.u16_le("extra field id")?, extra.u16_le("extra field length")?);
        let mut field = extra.nested("extra field", length.into())?;
        if id == EXTRA_64 {
            // Only the sizes that did not fit 32 bits are there, in this order.
            for value in [&mut size, &mut packed, &mut header_offset] {
                if *value == u64::from(u32::MAX) {
                    *value = field.u64_le("64-bit size")?;
                }
            }
        }
    }
    let invalid = |message: String| Err(before.invalid(&format!("entry {name:?}"), message));
    if flags & 1 != 0 {
        return invalid("it is encrypted".into());
    }
    if method != 0 || packed != size {
        return invalid(format!("it is compressed (method {method}, {packed} bytes for {size}); entries are stored as they are"));
    }
    Ok(Entry { name, bytes: size, header_offset })
}

/// An entry's bytes lie behind its own header, whose name and extra fields may have another length than the directory says.
fn locate(bytes: &[u8], entry: &Entry<'_>) -> Result<Range<usize>> {
    let mut r = Reader::new(bytes);
    r.seek("entry header", entry.header_offset)?;
    let before = r.clone();
    if r.u32_le("entry header signature")? != LOCAL {
        return Err(before.invalid(&format!("entry {:?}", entry.name), "there is no header where the directory says"));
    }
    r.skip("entry header", 22)?;
    let (name, extra) = (r.u16_le("name length")?, r.u16_le("extra length")?);
    r.skip("name and extra fields", u64::from(name) + u64::from(extra))?;
    let start = r.position() as usize;
    r.skip("entry bytes", entry.bytes)?;
    Ok(start..r.position() as usize)
}
