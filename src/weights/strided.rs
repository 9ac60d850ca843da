//! Tensors of PyTorch files whose numbers do not lie one behind the other: transposed tensors, and
//! columns of larger ones. All that they lie in is read, and they are laid out row by row.

use super::entry::Entry;
use crate::error::{Error, Result};

/// The most bytes of such a tensor, and of what it lies in. One of them stays in memory.
const MOST: u64 = 256 << 20;

/// The last strided tensor that was read in parts.
#[derive(Default)]
pub(super) struct LaidOut {
    /// First byte in its file, and its name.
    of: Option<(u64, String)>,
    numbers: Vec<u8>,
}

impl LaidOut {
    /// Copies bytes from `offset` of an entry's numbers on to `buffer`. `read` reads from a byte of
    /// the entry's data on.
    pub(super) fn copy(
        &mut self,
        entry: &Entry,
        strides: &[usize],
        offset: u64,
        buffer: &mut [u8],
        read: impl FnOnce(&mut [u8]) -> Result<()>,
    ) -> Result<()> {
        let of = Some((entry.begin, entry.name.clone()));
        if self.of != of {
            // Only one of them is in memory.
            *self = Self::default();
            let mut stored = vec![0; span(entry, strides) as usize];
            read(&mut stored)?;
            let width = entry.dtype.bitsize() / 8;
            *self = Self { of, numbers: row_by_row(&entry.shape, strides, width, &stored) };
        }
        buffer.copy_from_slice(&self.numbers[offset as usize..][..buffer.len()]);
        Ok(())
    }
}

/// Number of bytes from the first number of a tensor to its last, both included.
fn span(entry: &Entry, strides: &[usize]) -> u64 {
    let reach = entry.shape.iter().zip(strides).map(|(size, stride)| (*size as u64).saturating_sub(1) * *stride as u64);
    (reach.sum::<u64>() + 1) * (entry.dtype.bitsize() / 8) as u64
}

/// The memory in which a tensor is laid out, in bytes: what it lies in, and its numbers row by row.
/// It is 0 where they lie so already.
pub(super) fn memory(entry: &Entry) -> u64 {
    entry.strides.as_ref().map_or(0, |strides| span(entry, strides) + entry.bytes)
}

/// Refuses a tensor that is too large to be laid out in memory.
///
/// # Errors
/// `unsupported`, with the place of its file.
pub(super) fn check(entry: &Entry, place: &str) -> Result<()> {
    let Some(strides) = &entry.strides else { return Ok(()) };
    if span(entry, strides).max(entry.bytes) <= MOST {
        return Ok(());
    }
    Err(scattered(entry, strides, place))
}

/// The error of a tensor whose numbers would have to lie one behind the other.
fn scattered(entry: &Entry, strides: &[usize], place: &str) -> Error {
    Error::unsupported(format!(
        "{place}: tensor `{}` of shape {:?} is stored with strides {strides:?}, so that its numbers do not lie one behind the other, which \
         is read up to {} MB",
        entry.name,
        entry.shape,
        MOST >> 20
    ))
    .hint("save it anew in Python, with `.contiguous()` on each tensor, or as safetensors")
}

/// Refuses a tensor that is divided where it is stored, unless its numbers lie together.
///
/// # Errors
/// As `check`.
pub(super) fn check_together(entry: &Entry, place: &str) -> Result<()> {
    entry.strides.as_ref().map_or(Ok(()), |strides| Err(scattered(entry, strides, place)))
}

/// The numbers of a tensor, `width` bytes each, in row-major order. `stored` begins with the first
/// of them.
fn row_by_row(shape: &[usize], strides: &[usize], width: usize, stored: &[u8]) -> Vec<u8> {
    let count: usize = shape.iter().product();
    let mut numbers = Vec::with_capacity(count * width);
    let (Some((inner, outer)), Some((step, outer_strides))) = (shape.split_last(), strides.split_last()) else {
        return stored[..width].to_vec();
    };
    let mut index = vec![0; outer.len()];
    for _ in 0..count / (*inner).max(1) {
        let begin: usize = index.iter().zip(outer_strides).map(|(at, stride)| at * stride).sum();
        for column in 0..*inner {
            let at = (begin + column * step) * width;
            numbers.extend_from_slice(&stored[at..at + width]);
        }
        for (at, size) in index.iter_mut().zip(outer).rev() {
            *at += 1;
            if *at < *size {
                break;
            }
            *at = 0;
        }
    }
    numbers
}

#[cfg(test)]
mod tests {
    use safetensors::Dtype;

    use super::*;

    #[test]
    fn a_tensor_that_is_too_large_is_refused() {
        let entry = |shape: [usize; 2], strides: [usize; 2]| {
            let bytes = 2 * (shape[0] * shape[1]) as u64;
            let (name, shape, strides) = ("w".to_string(), shape.to_vec(), Some(strides.to_vec()));
            Entry { name, file: 0, dtype: Dtype::F16, shape, strides, begin: 0, bytes }
        };
        assert!(check(&entry([1 << 13, 1 << 14], [1, 1 << 13]), "model").is_ok());
        // It is too large, what it lies in is, and both.
        for (shape, strides) in
            [([1 << 14, 1 << 14], [0, 1]), ([4, 4], [1 << 26, 1]), ([1 << 14, 1 << 14], [1, 1 << 14])]
        {
            let error = check(&entry(shape, strides), "model").unwrap_err();
            assert!(error.message.contains("is read up to 256 MB"), "{error}");
        }
        assert!(check_together(&entry([2, 2], [1, 2]), "model").is_err());
    }

    #[test]
    fn numbers_are_laid_out_row_by_row() {
        let stored: Vec<u8> = (0..24).collect();
        // [2, 3] transposed, a column of a matrix, one row for all, and a scalar.
        assert_eq!(row_by_row(&[2, 3], &[1, 2], 1, &stored), [0, 2, 4, 1, 3, 5]);
        assert_eq!(row_by_row(&[3, 1], &[4, 1], 2, &stored), [0, 1, 8, 9, 16, 17]);
        assert_eq!(row_by_row(&[2, 2], &[0, 1], 1, &stored), [0, 1, 0, 1]);
        assert_eq!(row_by_row(&[], &[], 2, &stored), [0, 1]);
        let cube = row_by_row(&[2, 2, 3], &[1, 6, 2], 1, &stored);
        assert_eq!(cube, [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]);
    }
}
