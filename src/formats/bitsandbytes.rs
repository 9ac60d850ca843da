//! bitsandbytes: codes of four bits that name values of a table (NF4, FP4), and integers of eight bits.
//!
//! Four bits: the codes of a matrix lie one behind the other, the high half of a byte first, and every `block` of them has a scale of
//! its own, wherever rows end. The scales may be quantised again: codes of eight bits that name values of a second table, in blocks of
//! their own, around a mean. Eight bits: `SCB` holds the largest magnitude of each row, which 127 stands for. Facts: bitsandbytes
//! `functional.py`, `backends/default/ops.py`, `_ops.py`.

use super::affine;
use super::wrong::Wrong;
use crate::vector::vectorised;

/// 1 / 127, in f32, by which the library multiplies.
const SCALE_OF_INT8: f32 = 7.874_015_718_698_502e-3;

/// Codes of four bits.
pub struct FourBits<'a> {
    /// Of the matrix.
    pub values: usize,
    pub codes: &'a [u8],
    /// Of the codes.
    pub table: &'a [f32; 16],
    /// Codes that share a scale.
    pub block: usize,
    pub scales: BlockScales<'a>,
}

/// Scales of blocks.
pub enum BlockScales<'a> {
    Plain(&'a [f32]),
    /// Scale i is `table[codes[i]] · scales[i / block] + mean`.
    Nested {
        codes: &'a [u8],
        table: &'a [f32; 256],
        scales: &'a [f32],
        block: usize,
        mean: f32,
    },
}

impl BlockScales<'_> {
    fn decode(&self) -> Result<Vec<f32>, Wrong> {
        match self {
            BlockScales::Plain(scales) => {
                affine::finite(scales, ".absmax")?;
                Ok(scales.to_vec())
            }
            BlockScales::Nested { codes, table, scales, block, mean } => {
                affine::finite(scales, ".nested_absmax")?;
                affine::finite(&table[..], ".nested_quant_map")?;
                let of = |(i, code): (usize, &u8)| table[usize::from(*code)] * scales[i / block] + mean;
                Ok(codes.iter().enumerate().map(of).collect())
            }
        }
    }
}

impl FourBits<'_> {
    /// The values, one behind the other.
    ///
    /// # Errors
    /// For scales and values of tables that are no numbers.
    pub fn decode(&self) -> Result<Vec<f32>, Wrong> {
        let scales = self.scales.decode()?;
        affine::finite(self.table, ".quant_map")?;
        let mut values: Vec<f32> = Vec::with_capacity(self.codes.len() * 2);
        vectorised(|| {
            let pair = |byte: &u8| [self.table[usize::from(byte >> 4)], self.table[usize::from(byte & 15)]];
            values.extend(self.codes.iter().flat_map(pair));
            for (block, scale) in values.chunks_mut(self.block).zip(&scales) {
                block.iter_mut().for_each(|value| *value *= scale);
            }
        });
        values.truncate(self.values);
        Ok(values)
    }
}

/// The values [out, in] of integers and the largest magnitude of each row.
///
/// # Errors
/// For a magnitude that is no number.
pub fn int8(integers: &[i8], magnitudes: &[f32]) -> Result<Vec<f32>, Wrong> {
    affine::finite(magnitudes, ".SCB")?;
    let columns = integers.len() / magnitudes.len().max(1);
    let mut values: Vec<f32> = Vec::with_capacity(integers.len());
    vectorised(|| {
        for (row, magnitude) in integers.chunks(columns.max(1)).zip(magnitudes) {
            values.extend(row.iter().map(|integer| f32::from(*integer) * magnitude * SCALE_OF_INT8));
        }
    });
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a code of four bits that is a number itself.
    const TABLE: [f32; 16] = [0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11., 12., 13., 14., 15.];

    #[test]
    fn the_high_half_comes_first_and_blocks_cross_rows() {
        // Three rows of three: blocks of four end in the middle of rows, and the last half of the last byte is none.
        let scales = BlockScales::Plain(&[1.0, 10.0, 100.0]);
        let four = FourBits { values: 9, codes: &[0x12, 0x34, 0x56, 0x78, 0x90], table: &TABLE, block: 4, scales };
        assert_eq!(four.decode().unwrap(), [1., 2., 3., 4., 50., 60., 70., 80., 900.]);
    }

    #[test]
    fn scales_of_scales() {
        let table: [f32; 256] = std::array::from_fn(|i| i as f32 / 256.0);
        let scales =
            BlockScales::Nested { codes: &[64, 128, 192], table: &table, scales: &[2.0, 4.0], block: 2, mean: 0.5 };
        let four = FourBits { values: 6, codes: &[0x11, 0x11, 0x11], table: &TABLE, block: 2, scales };
        assert_eq!(four.decode().unwrap(), [1.0, 1.0, 1.5, 1.5, 3.5, 3.5]);
    }

    #[test]
    fn a_row_reaches_its_magnitude() {
        let values = int8(&[127, 0, -127, 127], &[127.0, 254.0]).unwrap();
        assert!((values[0] - 127.0).abs() < 1e-4 && values[1] == 0.0 && (values[3] - 254.0).abs() < 1e-4);
        assert_eq!(values[2], -values[3]);
        assert_eq!(int8(&[1], &[f32::NAN]).unwrap_err().piece, ".SCB");
    }
}
