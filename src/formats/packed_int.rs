//! `pack-quantized` of compressed-tensors: integers of 4 or 8 bits, packed along the rows of the matrix.
//!
//! A row of `weight_packed` [out, ⌈in · bits / 32⌉] is one stream of codes, each 2^(bits − 1) more than the integer it stands for.
//! `weight_scale` is [out, groups]; `weight_zero_point` [⌈out · bits / 32⌉, groups], if there is one, is packed along the outputs
//! with the same offset; `weight_g_idx` [in], if there is one, says which group a column belongs to. Facts: compressed-tensors
//! `compressors/pack_quantized/`.

use super::affine::{self, Groups, WORD_BITS};
use super::wrong::Wrong;
use crate::vector::vectorised;

/// What holds one matrix.
pub struct PackedInt<'a> {
    /// [out, in].
    pub shape: [usize; 2],
    /// Of a code: 2, 4 or 8.
    pub bits: usize,
    pub packed: &'a [u32],
    pub scales: &'a [f32],
    pub zero_points: Option<&'a [u32]>,
    pub groups: Groups<'a>,
}

impl PackedInt<'_> {
    /// The values [out, in].
    ///
    /// # Errors
    /// For a scale that is no number, and a column of a group that does not exist.
    pub fn decode(&self) -> Result<Vec<f32>, Wrong> {
        let [rows, columns] = self.shape;
        let groups = self.scales.len() / rows.max(1);
        self.groups.check(columns, groups, "_g_idx")?;
        affine::finite(self.scales, "_scale")?;
        let words = (columns * self.bits).div_ceil(WORD_BITS);
        let mut values = vec![0.0; rows * columns];
        let middle = (1 << (self.bits - 1)) as f32;
        vectorised(|| {
            for (row, values) in values.chunks_mut(columns.max(1)).enumerate() {
                affine::unpack(&self.packed[row * words..(row + 1) * words], self.bits, values);
                let scales = &self.scales[row * groups..(row + 1) * groups];
                let zero = |group: usize| match self.zero_points {
                    None => middle,
                    Some(packed) => affine::code(&packed[group..], groups, self.bits, row),
                };
                affine::row(values, self.groups, scales, zero);
            }
        });
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_points_are_packed_along_the_outputs() {
        // Nine rows of three columns, code 9 everywhere; zero points 0 to 8 of the only group.
        let shape = [9, 3];
        let (packed, scales) = ([0x999; 9], [0.5; 9]);
        let zero_points = [0x7654_3210, 0x8];
        let groups = Groups::Even(3);
        let int =
            PackedInt { shape, bits: 4, packed: &packed, scales: &scales, zero_points: Some(&zero_points), groups };
        let values = int.decode().unwrap();
        let expected: Vec<f32> = (0..27).map(|i| (9 - i / 3) as f32 * 0.5).collect();
        assert_eq!(values, expected);
        let symmetric = PackedInt { zero_points: None, ..int }.decode().unwrap();
        assert_eq!(symmetric, [0.5; 27]);
    }
}
