//! Integers of eight bits, one byte each: `int-quantized` and `naive-quantized` of compressed-tensors.
//!
//! `weight` [out, in] holds the integers, `weight_scale` [out, groups] is mostly one a row, or one for all, `weight_zero_point` of the
//! same shape is there where weights are not symmetric.

use super::affine::{self, Groups};
use super::wrong::Wrong;
use crate::vector::vectorised;

/// What holds one matrix.
pub struct Int8<'a> {
    /// [out, in].
    pub shape: [usize; 2],
    pub integers: &'a [i8],
    /// [out, groups], or one.
    pub scales: &'a [f32],
    /// As many as scales.
    pub zero_points: Option<&'a [i8]>,
    pub groups: Groups<'a>,
}

impl Int8<'_> {
    /// The values [out, in].
    ///
    /// # Errors
    /// For a scale that is no number, and a column of a group that does not exist.
    pub fn decode(&self) -> Result<Vec<f32>, Wrong> {
        let [rows, columns] = self.shape;
        let of_row = |row: usize, all: usize| match all {
            1 => 0..1,
            _ => row * (all / rows)..(row + 1) * (all / rows),
        };
        self.groups.check(columns, of_row(0, self.scales.len()).len(), "_g_idx")?;
        affine::finite(self.scales, "_scale")?;
        let mut values: Vec<f32> = vectorised(|| self.integers.iter().map(|integer| f32::from(*integer)).collect());
        vectorised(|| {
            for (row, values) in values.chunks_mut(columns.max(1)).enumerate() {
                let own = of_row(row, self.scales.len());
                let zeros = self.zero_points.map(|zeros| &zeros[own.clone()]);
                affine::row(values, self.groups, &self.scales[own], |group| {
                    zeros.map_or(0.0, |zeros| f32::from(zeros[group]))
                });
            }
        });
        Ok(values)
    }
}
