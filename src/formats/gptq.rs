//! GPTQ: integers of 2, 4 or 8 bits, transposed and packed along the inputs of the matrix.
//!
//! `qweight` [in · bits / 32, out] holds the codes, `scales` [groups, out], `qzeros` [groups, out · bits / 32] the zeros, packed along
//! the outputs, and `g_idx` [in] the group of each input, in no order where the inputs were quantised by activation. What is stored as a
//! zero is one less than it in the first version of the format. Facts: gptqmodel `utils/model_dequant.py`, auto-gptq `qlinear`.

use super::affine::{self, Groups, WORD_BITS};
use super::wrong::Wrong;
use crate::vector::vectorised;

/// Outputs that are written side by side, so that their rows stay in a cache.
const OUTPUTS: usize = 16;

/// What holds one matrix.
pub struct Gptq<'a> {
    /// [out, in].
    pub shape: [usize; 2],
    /// Of a code: 2, 4 or 8.
    pub bits: usize,
    pub codes: &'a [u32],
    pub zeros: &'a [u32],
    /// What is added to a stored zero: 1 in the first version, 0 in the second.
    pub zero_offset: u32,
    /// [groups, out].
    pub scales: &'a [f32],
    pub groups: Groups<'a>,
}

impl Gptq<'_> {
    /// The values [out, in].
    ///
    /// # Errors
    /// For a scale that is no number, an input of a group that does not exist, and a zero that the first version cannot store.
    pub fn decode(&self) -> Result<Vec<f32>, Wrong> {
        let [outputs, inputs] = self.shape;
        self.groups.check(inputs, self.scales.len() / outputs.max(1), ".g_idx")?;
        affine::finite(self.scales, ".scales")?;
        let zeros = self.zeros()?;
        let mut values = vec![0.0; outputs * inputs];
        let per_word = WORD_BITS / self.bits;
        let mask = (1 << self.bits) - 1;
        let group: Vec<usize> = (0..inputs).map(|input| self.groups.of(input) * outputs).collect();
        vectorised(|| {
            for first in (0..outputs).step_by(OUTPUTS) {
                let block = first..(first + OUTPUTS).min(outputs);
                for (word, groups) in group.chunks(per_word).enumerate() {
                    for output in block.clone() {
                        let mut code = self.codes[word * outputs + output];
                        let values = &mut values[output * inputs + word * per_word..];
                        for (value, group) in values.iter_mut().zip(groups) {
                            let of = group + output;
                            *value = ((code & mask) as f32 - zeros[of]) * self.scales[of];
                            code >>= self.bits;
                        }
                    }
                }
            }
        });
        Ok(values)
    }

    /// Zeros [groups, out].
    fn zeros(&self) -> Result<Vec<f32>, Wrong> {
        let outputs = self.shape[0];
        let words = (outputs * self.bits).div_ceil(WORD_BITS);
        let last = ((1u32 << self.bits) - 1) as f32;
        let mut zeros = vec![0.0; self.scales.len()];
        for (group, (zeros, words)) in zeros.chunks_mut(outputs.max(1)).zip(self.zeros.chunks(words.max(1))).enumerate()
        {
            affine::unpack(words, self.bits, zeros);
            if self.zero_offset > 0
                && let Some(output) = zeros.iter().position(|zero| *zero == last)
            {
                return Err(Wrong::new(
                    ".qzeros",
                    format!(
                        "stores {last} as the zero of output {output} in group {group}: it was 0, which this version of the format \
                         cannot store, and packing it has damaged its neighbours"
                    ),
                ));
            }
            zeros.iter_mut().for_each(|zero| *zero += self.zero_offset as f32);
        }
        Ok(zeros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Eight inputs and two outputs; groups of the inputs are 1, 0, 1, 0 and so on.
    fn shuffled(zero_offset: u32, zeros: &[u32]) -> Result<Vec<f32>, Wrong> {
        let groups = [1, 0, 1, 0, 1, 0, 1, 0];
        let codes = [0x7654_3210, 0xfedc_ba98];
        let scales = [1.0, 2.0, 100.0, 200.0];
        Gptq { shape: [2, 8], bits: 4, codes: &codes, zeros, zero_offset, scales: &scales, groups: Groups::Of(&groups) }
            .decode()
    }

    #[test]
    fn inputs_find_their_groups() {
        let values = shuffled(1, &[0x10, 0x32]).unwrap();
        let first: Vec<f32> = (0..8).map(|i| if i % 2 == 0 { (i - 3) * 100 } else { i - 1 } as f32).collect();
        let second: Vec<f32> =
            (0..8).map(|i| if i % 2 == 0 { (8 + i - 4) * 200 } else { (8 + i - 2) * 2 } as f32).collect();
        assert_eq!(values, [first, second].concat());
    }

    #[test]
    fn the_second_version_stores_zeros_as_they_are() {
        assert_eq!(shuffled(1, &[0x10, 0x32]), shuffled(0, &[0x21, 0x43]));
        assert!(shuffled(0, &[0xf0, 0]).is_ok());
    }

    #[test]
    fn a_zero_that_cannot_be_stored_is_told() {
        assert_eq!(shuffled(1, &[0, 0xf0]).unwrap_err().piece, ".qzeros");
        // What pads the last word is no zero.
        assert!(shuffled(1, &[0xff00, 0]).is_ok());
    }
}
