//! The headers of a model's safetensors files.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::hub::{self, Ahead, Announcement, ByteSource, FileRange, SourceFile};
use crate::outside::safetensors::{LENGTH, MAX_HEADER};

/// Reads the header of every file.
///
/// # Errors
/// `corrupt` if one does not fit its file or all together are too large; `unsupported` if a file
/// begins like another format.
pub(super) fn read(source: &Arc<dyn ByteSource>) -> Result<Vec<Vec<u8>>> {
    let files = source.files()?;
    let sizes: Vec<u64> = headers(source, files, |_| 0..LENGTH)?
        .into_iter()
        .map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes were read")))
        .collect();
    for (index, (file, size)) in files.iter().zip(&sizes).enumerate() {
        if *size > MAX_HEADER || LENGTH + size > file.bytes {
            refuse_other_content(&**source, index)?;
            let bytes = file.bytes;
            return Err(damaged(
                &**source,
                file,
                format!("a header of {size} bytes does not fit a file of {bytes} bytes"),
            ));
        }
    }
    let all = sizes.iter().sum::<u64>();
    if all > MAX_HEADER {
        let place = source.place();
        return Err(Error::corrupt(format!("reading {place}: the headers of its files have {all} bytes"))
            .hint("the largest models have a few million; download the files again"));
    }
    headers(source, files, |i| LENGTH..LENGTH + sizes[i])
}

/// The same range of every file.
fn headers(
    source: &Arc<dyn ByteSource>,
    files: &[SourceFile],
    range: impl Fn(usize) -> Range<u64>,
) -> Result<Vec<Vec<u8>>> {
    let mut ahead = Ahead::new(source.clone());
    for (file, described) in files.iter().enumerate() {
        let range = range(file);
        if range.end > described.bytes {
            refuse_other_content(&**source, file)?;
            let problem = format!("{} bytes are too few for safetensors", described.bytes);
            return Err(damaged(&**source, described, problem));
        }
        ahead.expect(Announcement { order: 0, max_gap: 0, ranges: vec![FileRange { file, range }] });
    }
    let read = |file| {
        let range = range(file);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        source.read(file, range.start, &mut bytes).map(|()| bytes)
    };
    (0..files.len()).map(read).collect()
}

/// Rejects a file whose first eight bytes are the beginning of another format in place of a
/// header's length.
fn refuse_other_content(source: &dyn ByteSource, index: usize) -> Result<()> {
    let file = &source.files()?[index];
    let mut begin = vec![0; file.bytes.min(hub::TELLING) as usize];
    source.read(index, 0, &mut begin)?;
    let advice = "use the model's release in safetensors; a file does not change its format with its name";
    hub::no_safetensors(&format!("{}/{}", source.place(), file.name), &begin, advice, hub::REFUSED).map_or(Ok(()), Err)
}

pub(super) fn damaged(source: &dyn ByteSource, file: &SourceFile, problem: String) -> Error {
    Error::corrupt(format!("reading {}/{}: {problem}", source.place(), file.name))
        .hint("the file is damaged or incomplete; download it again")
}
