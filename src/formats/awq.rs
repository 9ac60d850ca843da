//! AWQ as `gemm`: integers of 4 bits, transposed and packed along the outputs of the matrix, in an order of their own.
//!
//! `qweight` [in, out / 8] and `qzeros` [groups, out / 8] hold eight codes a word; `scales` is [groups, out]. Facts: autoawq
//! `utils/packing_utils.py` and `modules/linear/gemm.py`.

use super::affine::{self, Groups};
use super::wrong::Wrong;
use crate::vector::vectorised;

/// Codes of a word.
pub const PER_WORD: usize = 8;
/// Bits of a code.
const BITS: usize = 4;
/// Which of the eight outputs of a word its codes belong to, from the low end.
const OUTPUTS: [usize; PER_WORD] = [0, 2, 4, 6, 1, 3, 5, 7];
/// Inputs that are written side by side.
const INPUTS: usize = 16;

/// What holds one matrix.
pub struct Awq<'a> {
    /// [out, in].
    pub shape: [usize; 2],
    pub codes: &'a [u32],
    pub zeros: &'a [u32],
    /// [groups, out].
    pub scales: &'a [f32],
    pub groups: Groups<'a>,
}

impl Awq<'_> {
    /// The values [out, in].
    ///
    /// # Errors
    /// For a scale that is no number.
    pub fn decode(&self) -> Result<Vec<f32>, Wrong> {
        let [outputs, inputs] = self.shape;
        affine::finite(self.scales, ".scales")?;
        let words = outputs / PER_WORD;
        let mut zeros = vec![0.0; self.scales.len()];
        for (zeros, word) in zeros.chunks_mut(PER_WORD).zip(self.zeros) {
            for (i, output) in OUTPUTS.into_iter().enumerate() {
                zeros[output] = code(*word, i);
            }
        }
        let mut values = vec![0.0; outputs * inputs];
        vectorised(|| {
            for first in (0..inputs).step_by(INPUTS) {
                let block = first..(first + INPUTS).min(inputs);
                for word in 0..words {
                    for (i, output) in OUTPUTS.into_iter().enumerate() {
                        let output = word * PER_WORD + output;
                        for input in block.clone() {
                            let of = self.groups.of(input) * outputs + output;
                            let code = code(self.codes[input * words + word], i);
                            values[output * inputs + input] = (code - zeros[of]) * self.scales[of];
                        }
                    }
                }
            }
        });
        Ok(values)
    }
}

/// Code `index` of a word, from its low end.
#[inline(always)]
fn code(word: u32, index: usize) -> f32 {
    (word >> (BITS * index) & ((1 << BITS) - 1)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_of_a_word_are_in_its_own_order() {
        // Codes 0 to 7 in the order of the outputs, for each of two inputs in a group each.
        let word = 0x7531_6420;
        let scales: Vec<f32> = (0..16).map(|i| if i < 8 { 1.0 } else { 10.0 }).collect();
        let awq = Awq {
            shape: [8, 2],
            codes: &[word, word],
            zeros: &[0x1111_1111, word],
            scales: &scales,
            groups: Groups::Even(1),
        };
        let expected: Vec<f32> = (0..8).flat_map(|output| [output as f32 - 1.0, 0.0]).collect();
        assert_eq!(awq.decode().unwrap(), expected);
    }
}
