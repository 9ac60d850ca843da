//! Loads weights in codes: reads the bytes of their pieces and decodes them, or keeps the codes.

use std::ops::Range;
use std::sync::Arc;

use candle_core::DType;
use half::bf16;
use safetensors::Dtype;

use super::{Loader, on_gpus, resident_dtype, stays_in_codes, unpack};
use crate::error::{Error, Kind, Result};
use crate::formats::{Coding, Decoded, Kernel, Wrong};
use crate::spec::inventory::Part;
use crate::tensor::{Device, InCodes, Tensor, gpus};
use crate::vector::vectorised;
use crate::weights::entry::Entry;

/// The advice about codes that have no value.
const DAMAGED: &str = "the weights are damaged: every result computed from them would be meaningless";

impl Loader<'_> {
    /// Loads a part in codes, for each device: as numbers of a type, or as the codes that stay in
    /// memory.
    pub(super) fn coded(&self, coding: &Arc<dyn Coding>, part: &Part, to: Option<DType>) -> Result<Vec<Tensor>> {
        let weight = &part.weight;
        let (rows, window, shape) = (weight.own_rows(), weight.window(), weight.loaded_shape());
        let stored = weight.stored();
        let ranges = stored.iter().map(|tensor| {
            let entry = self.checkpoint.readable(tensor)?;
            Ok((entry, weight.own_bytes(tensor, entry.bytes)))
        });
        let ranges = ranges.collect::<Result<Vec<_>>>()?;
        let stays = to.is_none() && matches!(self.devices, [Device::Cpu]) && stays_in_codes(part);
        let to = to.unwrap_or(resident_dtype(part, Dtype::F32));
        let bytes = |(entry, range): &(&Entry, Range<u64>)| {
            self.stored::<u8>(entry, range.start, (range.end - range.start) as usize)
        };
        let read = || ranges.iter().map(bytes).collect::<Result<Vec<_>>>();
        let wrong = |wrong: Wrong| self.wrong(ranges[wrong.piece].0, &wrong);
        let here = rows.start - window.start..rows.end - window.start;
        if let Some(gpus) = gpus(self.devices) {
            let (mut held, mut own) = (window.len(), here.clone());
            let there = match coding.kernel() {
                Some(kernel) => Some((kernel, self.pieces_on_gpus(&gpus, &ranges)?)),
                None => {
                    let kept = coding.keep(read()?, window.len(), here.clone()).map_err(wrong)?;
                    own = kept.above..kept.above + here.len();
                    if coding.keeps_own_rows() {
                        held = here.len();
                    }
                    let there = coding.for_gpu(kept.parts);
                    let copied = |(kernel, pieces): (Kernel, Vec<_>)| {
                        Ok((kernel, unpack::copied_to_gpus(&gpus, kernel, &pieces)?))
                    };
                    there.map(copied).transpose()?
                }
            };
            let wanted = unpack::Wanted { rows: held, own, shape: &shape, to };
            let unpacked = there.map(|(kernel, pieces)| unpack::unpacked(kernel, &pieces, &wanted)).transpose()?;
            // Decoding below reports codes that have no value.
            if let Some(Some(arrays)) = unpacked {
                return Ok(on_gpus(arrays));
            }
        }
        let pieces = read()?;
        if let (true, [out, input]) = (stays, &shape[..]) {
            let kept = coding.keep(pieces, window.len(), here).map_err(wrong)?;
            return Ok(vec![Tensor::Codes(InCodes::new(coding.clone(), kept, [*out, *input]))]);
        }
        let decoded = coding.decode(pieces, window.len()).map_err(wrong)?;
        let input = shape.last().copied().unwrap_or(1);
        let own = here.start * input..here.end * input;
        let codes = ranges[0].0;
        match decoded {
            Decoded::Bf16(values) => {
                let values = cut(values, own);
                match values.iter().position(|value| !value.is_finite()) {
                    Some(index) => Err(self.not_finite(codes, index, values[index].to_f32())),
                    None if to == DType::BF16 => self.everywhere(values, shape),
                    None => self.everywhere(values.iter().map(|value| value.to_f32()).collect::<Vec<f32>>(), shape),
                }
            }
            Decoded::F32(values) => {
                let values = cut(values, own);
                if !vectorised!(|| values.iter().fold(true, |all, value| all & value.is_finite())) {
                    let index = values.iter().position(|value| !value.is_finite()).expect("found above");
                    return Err(self.not_finite(codes, index, values[index]));
                }
                if to == DType::BF16 {
                    let values = vectorised!(|| values.iter().map(|value| bf16::from_f32(*value)).collect());
                    return self.everywhere::<bf16>(values, shape);
                }
                self.everywhere(values, shape)
            }
        }
    }

    /// A tensor of the same values on each device.
    pub(super) fn everywhere<T: candle_core::WithDType>(
        &self,
        values: Vec<T>,
        shape: Vec<usize>,
    ) -> Result<Vec<Tensor>> {
        match self.devices {
            [device] => Ok(vec![Tensor::from_vec(values, shape, device)?]),
            devices => devices.iter().map(|device| Tensor::from_vec(values.clone(), shape.clone(), device)).collect(),
        }
    }

    fn wrong(&self, entry: &Entry, wrong: &Wrong) -> Error {
        let place = self.checkpoint.place(entry);
        Error::new(Kind::NonFinite, format!("{place}: tensor `{}`: {}", entry.name, wrong.what)).hint(DAMAGED)
    }
}

/// The values in `own`, without those that had to be decoded with them.
fn cut<T: Copy>(mut values: Vec<T>, own: Range<usize>) -> Vec<T> {
    if own != (0..values.len()) {
        values.copy_within(own.clone(), 0);
        values.truncate(own.len());
        values.shrink_to_fit();
    }
    values
}
