//! Packs and unpacks the arrays of `activations.stats`: extremes by bytes and ladders by rungs,
//! each as a Zstandard frame.
//!
//! No input is trusted: sizes are checked before memory is allocated, and inconsistent data are an
//! error.

use std::io::Read;

use crate::record::Ladders;

/// This is Zstandard's own default: a higher level is slower and saves one percent on random
/// mantissas.
const LEVEL: i32 = 3;

pub(super) type Unpacked<T> = Result<T, String>;
/// Looks up the bytes of a tensor by its name.
pub(super) type Tensor<'a> = dyn Fn(&str) -> Unpacked<&'a [u8]> + 'a;

/// Rows of ladders over all positions, each paired with the one without position 0.
pub(super) struct Rows<'a> {
    pub rows: Vec<(&'a Ladders, &'a Ladders)>,
    pub hidden: usize,
    /// The number of thresholds on the ladder.
    pub rungs: usize,
}

/// Named tensors that will be written to a file.
#[derive(Default)]
pub(super) struct Packed(Vec<(String, Vec<u8>)>);

impl Packed {
    fn add(&mut self, name: String, bytes: &[u8]) {
        let frame = zstd::bulk::compress(bytes, LEVEL).expect("memory is all that compression needs");
        self.0.push((name, frame));
    }

    pub(super) fn finish(self) -> Vec<(String, Vec<u8>)> {
        self.0
    }

    /// Adds numbers as they are, little-endian.
    pub(super) fn numbers<T: bytemuck::Pod>(&mut self, name: String, numbers: &[T]) {
        // All computers that this runs on are little-endian.
        self.add(name, bytemuck::cast_slice(numbers));
    }

    /// Adds rows of values over all positions, each paired with the row without position 0.
    pub(super) fn extremes<'a>(&mut self, name: &str, rows: impl Iterator<Item = (&'a [f32], &'a [f32])>) {
        let (mut values, mut cells, mut changed) = (Vec::new(), Vec::new(), Vec::new());
        for (all, first) in rows {
            for (i, (a, f)) in all.iter().zip(first).enumerate() {
                if a.to_bits() != f.to_bits() {
                    cells.extend(((values.len() + i) as u32).to_le_bytes());
                    changed.extend(f.to_le_bytes());
                }
            }
            values.extend_from_slice(all);
        }
        let planes: Vec<u8> =
            (0..4).flat_map(|byte| values.iter().map(move |value: &f32| value.to_le_bytes()[byte])).collect();
        self.add(name.to_string(), &planes);
        self.add(format!("first.{name}"), &[cells, changed].concat());
    }

    /// Adds ladders. Returns false if the counts without position 0 are not those over all
    /// positions, less at most one hit at each rung.
    pub(super) fn ladders(&mut self, name: &str, rows: &Rows) -> bool {
        let mut reached = vec![0u8; rows.rows.len() * rows.hidden];
        let mut first = reached.clone();
        let mut by_rung = vec![Vec::new(); rows.rungs];
        for (row, (all, without)) in rows.rows.iter().enumerate() {
            let mut rest = without.len();
            for ladder in all.iter() {
                if ladder.feature as usize >= rows.hidden {
                    return false;
                }
                let cell = row * rows.hidden + ladder.feature as usize;
                let other = without.of(ladder.feature as usize);
                rest -= usize::from(other.is_some());
                let less = |rung: usize| {
                    ladder.counts[rung] - other.map_or(0, |other| other.at(rung)).min(ladder.counts[rung])
                };
                let levels = (0..ladder.counts.len()).take_while(|&rung| less(rung) == 1).count();
                let same = (levels..ladder.counts.len()).all(|rung| less(rung) == 0);
                if !same
                    || ladder.counts.len() > rows.rungs
                    || other.is_some_and(|o| o.counts.len() > ladder.counts.len())
                {
                    return false;
                }
                reached[cell] = ladder.counts.len() as u8;
                first[cell] = levels as u8;
                ladder.counts.iter().zip(&mut by_rung).for_each(|(&count, rung)| leb128(rung, count));
            }
            if rest != 0 {
                return false;
            }
        }
        self.add(format!("{name}.rungs"), &reached);
        self.add(format!("{name}.counts"), &by_rung.concat());
        self.add(format!("{name}.first"), &first);
        true
    }
}

/// Writes unsigned LEB128: seven bits per byte, lowest first, with the high bit set on all but the
/// last byte.
fn leb128(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_leb128(bytes: &mut std::slice::Iter<u8>) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..32).step_by(7) {
        let byte = *bytes.next()?;
        value |= u32::from(byte & 0x7f).checked_shl(shift)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Decompresses at most `limit` bytes. Memory grows with the data, not with the limit.
fn unpack(frame: &[u8], name: &str, limit: usize) -> Unpacked<Vec<u8>> {
    let bad = |problem: &dyn std::fmt::Display| format!("`{name}`: {problem}");
    let decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(|e| bad(&e))?;
    let mut bytes = Vec::new();
    decoder.take((limit as u64).saturating_add(1)).read_to_end(&mut bytes).map_err(|e| bad(&e))?;
    if bytes.len() > limit { Err(bad(&"too many bytes")) } else { Ok(bytes) }
}

fn unpack_exactly(frame: &[u8], name: &str, size: Option<usize>) -> Unpacked<Vec<u8>> {
    let size = size.ok_or(format!("`{name}` cannot be so large"))?;
    let bytes = unpack(frame, name, size)?;
    if bytes.len() == size { Ok(bytes) } else { Err(format!("`{name}` has a wrong size")) }
}

/// Reads `count` numbers that are written as they are, little-endian.
pub(super) fn read_numbers<T: bytemuck::Pod>(tensor: &Tensor, name: &str, count: Option<usize>) -> Unpacked<Vec<T>> {
    let size = count.and_then(|count| count.checked_mul(size_of::<T>()));
    let bytes = unpack_exactly(tensor(name)?, name, size)?;
    Ok(bytemuck::pod_collect_to_vec(&bytes))
}

/// Reads the extremes of `cells` cells over all positions, and without position 0.
pub(super) fn read_extremes(tensor: &Tensor, name: &str, cells: usize) -> Unpacked<(Vec<f32>, Vec<f32>)> {
    let planes = unpack_exactly(tensor(name)?, name, cells.checked_mul(4))?;
    let all: Vec<f32> =
        (0..cells).map(|cell| f32::from_le_bytes([0, 1, 2, 3].map(|byte| planes[byte * cells + cell]))).collect();
    let name = format!("first.{name}");
    let changed = unpack(tensor(&name)?, &name, cells * 8)?;
    let words: Vec<[u8; 4]> = changed.as_chunks::<4>().0.to_vec();
    let (at, values) = words.split_at(words.len() / 2);
    let mut first = all.clone();
    for (at, value) in at.iter().zip(values) {
        let cell = u32::from_le_bytes(*at) as usize;
        *first.get_mut(cell).ok_or(format!("`{name}` names cell {cell} of {cells}"))? = f32::from_le_bytes(*value);
    }
    match changed.len() == 8 * at.len() {
        true => Ok((all, first)),
        false => Err(format!("`{name}` has a wrong size")),
    }
}

/// The sizes of ladders, which are known before they are read.
pub(super) struct Shape {
    pub rows: usize,
    pub hidden: usize,
    /// The number of thresholds on the ladder.
    pub rungs: usize,
    /// The largest number of counts that is accepted.
    pub most: usize,
}

/// The ladders over all positions, and those without position 0.
type BothLadders = (Vec<Ladders>, Vec<Ladders>);

/// Reads ladders. Returns them with the number of their counts.
pub(super) fn read_ladders(tensor: &Tensor, name: &str, shape: Shape) -> Unpacked<(BothLadders, usize)> {
    let Shape { rows, hidden, rungs, most } = shape;
    let inconsistent = || format!("`{name}` is not consistent");
    let part = |part: &str| format!("{name}.{part}");
    let cells = rows.checked_mul(hidden);
    let reached = unpack_exactly(tensor(&part("rungs"))?, &part("rungs"), cells)?;
    let first = unpack_exactly(tensor(&part("first"))?, &part("first"), cells)?;
    let total: usize = reached.iter().map(|&rungs| rungs as usize).sum();
    let sound = |(&reached, &first): (&u8, &u8)| reached as usize <= rungs && first <= reached;
    if !reached.iter().zip(&first).all(sound) {
        return Err(inconsistent());
    }
    if total > most {
        return Err(format!("`{name}` claims {total} counts, more than a file of its size can have"));
    }
    // A u32 takes five bytes at most.
    let limit = total.checked_mul(5).ok_or_else(inconsistent)?;
    let bytes = unpack(tensor(&part("counts"))?, &part("counts"), limit)?;
    // Every count takes one byte at least.
    if bytes.len() < total {
        return Err(inconsistent());
    }
    let mut bytes = bytes.iter();
    // Computes where the counts of each cell begin, and then, rung by rung, the cells that reach
    // it.
    let mut starts = Vec::with_capacity(reached.len());
    let mut next = 0;
    for &rungs in &reached {
        starts.push(next);
        next += rungs as usize;
    }
    let mut counts = vec![0u32; total];
    let mut reaching: Vec<usize> = (0..reached.len()).filter(|&cell| reached[cell] > 0).collect();
    let mut rung = 0;
    while !reaching.is_empty() {
        for &cell in &reaching {
            counts[starts[cell] + rung] =
                read_leb128(&mut bytes).filter(|&count| count > 0).ok_or_else(inconsistent)?;
        }
        rung += 1;
        reaching.retain(|&cell| reached[cell] as usize > rung);
    }
    if bytes.next().is_some() {
        return Err(inconsistent());
    }
    let (mut all, mut without) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut less = Vec::new();
    for row in 0..rows {
        let (mut all_row, mut without_row) = (Ladders::default(), Ladders::default());
        for feature in 0..hidden {
            let cell = row * hidden + feature;
            if reached[cell] == 0 {
                continue;
            }
            let counts = &counts[starts[cell]..starts[cell] + reached[cell] as usize];
            all_row.push(feature as u32, counts);
            less.clear();
            let levels = first[cell] as usize;
            less.extend(counts.iter().enumerate().map(|(rung, count)| count - u32::from(rung < levels)));
            let left = less.iter().position(|&count| count == 0).unwrap_or(less.len());
            if left > 0 {
                without_row.push(feature as u32, &less[..left]);
            }
        }
        all.push(all_row);
        without.push(without_row);
    }
    Ok(((all, without), total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        let numbers = [0, 1, 127, 128, 300, 2048, u32::MAX];
        let mut bytes = Vec::new();
        numbers.iter().for_each(|&number| leb128(&mut bytes, number));
        let mut rest = bytes.iter();
        assert_eq!(numbers.map(|_| read_leb128(&mut rest)), numbers.map(Some));
        assert_eq!(read_leb128(&mut rest), None);
        assert_eq!(read_leb128(&mut [0xff; 9].iter()), None);
    }

    #[test]
    fn rows_that_differ_by_more_than_a_position_are_refused() {
        let row = |counts: &[u32]| -> Ladders { [(1, counts.to_vec())].into_iter().collect() };
        let packs = |all: &Ladders, first: &Ladders| {
            Packed::default().ladders("x", &Rows { rows: vec![(all, first)], hidden: 3, rungs: 3 })
        };
        assert!(packs(&row(&[5, 2, 1]), &row(&[4, 1])));
        assert!(packs(&row(&[5, 2]), &row(&[5, 2])));
        assert!(packs(&row(&[1]), &Ladders::default()));
        assert!(!packs(&row(&[5, 2]), &row(&[3, 2])));
        assert!(!packs(&row(&[5, 2]), &row(&[5, 1])));
        assert!(!packs(&row(&[5]), &row(&[5, 1])));
        assert!(!packs(&Ladders::default(), &row(&[1])));
        assert!(!packs(&row(&[5, 2, 1, 1]), &row(&[5, 2, 1, 1])));
    }
}
