//! The short convolution of linear attention: depthwise and causal over positions, then SiLU, for chosen columns of a
//! projection; head by head, so that what comes out is ready for products per head. Always f32.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::values;
use super::vector::{exp, sum, vectorised};

/// Added to the sum of squares before the root (transformers `l2norm`).
const UNIT_EPS: f32 = 1e-6;

/// Where a head is in the projection and in the weight of the convolution.
#[derive(Clone, Copy)]
pub struct Source {
    pub first_column: usize,
    pub first_channel: usize,
}

pub struct ShortConv {
    pub positions: usize,
    /// Channels of a head.
    pub width: usize,
    /// One per head of the result; several may read the same columns.
    pub heads: Vec<Source>,
    /// Brings each head at each position to this length.
    pub length: Option<f32>,
}

pub fn short_conv(x: &Tensor, weight: &Tensor, op: &ShortConv) -> Result<Tensor> {
    x.apply_op2_no_bwd(weight, op)
}

impl ShortConv {
    fn run(&self, x: &[f32], columns: usize, weight: &[f32], kernel: usize) -> Vec<f32> {
        let (positions, width) = (self.positions, self.width);
        let sequences = x.len() / (columns * positions);
        let mut out = vec![0f32; sequences * self.heads.len() * positions * width];
        out.par_chunks_exact_mut(positions * width).enumerate().for_each(|(i, out)| {
            let source = self.heads[i % self.heads.len()];
            let weight = &weight[source.first_channel * kernel..][..width * kernel];
            // [kernel, width], the last tap on the position itself
            let taps: Vec<f32> = (0..kernel).flat_map(|j| weight.iter().skip(j).step_by(kernel)).copied().collect();
            let first_row = i / self.heads.len() * positions;
            for (t, out) in out.chunks_exact_mut(width).enumerate() {
                vectorised(|| {
                    for (back, taps) in taps.chunks_exact(width).rev().enumerate().take(t + 1) {
                        let x = &x[(first_row + t - back) * columns + source.first_column..][..width];
                        out.iter_mut().zip(x).zip(taps).for_each(|((out, x), tap)| *out += tap * x);
                    }
                    out.iter_mut().for_each(|y| *y /= 1.0 + exp(-*y));
                    if let Some(length) = self.length {
                        let factor = length / (sum(out, |y| y * y) + UNIT_EPS).sqrt();
                        out.iter_mut().for_each(|y| *y *= factor);
                    }
                });
            }
        });
        out
    }
}

impl CustomOp2 for ShortConv {
    fn name(&self) -> &'static str {
        "short_conv"
    }

    fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, weight: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, columns) = xl.shape().dims2()?;
        let kernel = wl.dims()[2];
        let weight = values::<f32>(weight, wl)?;
        let out = self.run(values::<f32>(x, xl)?, columns, weight, kernel);
        let shape = (rows / self.positions, self.heads.len(), self.positions, self.width);
        Ok((CpuStorage::F32(out), shape.into()))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn taps_look_back_from_each_position_and_stop_at_the_sequence() {
        // Two sequences of three positions, two columns; the head is column 1.
        let x = [0.0f32, 1.0, 0.0, 2.0, 0.0, 3.0, 0.0, 10.0, 0.0, 20.0, 0.0, 30.0];
        let x = Tensor::new(&x, &Device::Cpu).unwrap().reshape((6, 2)).unwrap();
        // Channel 1: half of the position before, all of the position itself.
        let weight = Tensor::new(&[9.0f32, 9.0, 0.5, 1.0], &Device::Cpu).unwrap().reshape((2, 1, 2)).unwrap();
        let heads = vec![Source { first_column: 1, first_channel: 1 }];
        let op = ShortConv { positions: 3, width: 1, heads, length: None };
        let y = short_conv(&x, &weight, &op).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let silu = |x: f32| x / (1.0 + (-x).exp());
        for (y, x) in y.iter().zip([1.0, 2.5, 4.0, 10.0, 25.0, 40.0]) {
            assert!((y - silu(x)).abs() < 1e-6, "{y} for {x}");
        }
    }
}
