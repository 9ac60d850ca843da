//! A feed-forward network on chosen rows, added into the residual stream, in memory that is kept from call to call.

use std::sync::Mutex;

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use rayon::prelude::*;

use super::activation::combine;
use super::project::{Projection, multiply};
use super::shared::Shared;
use super::{PIECE, values, values_mut};
use crate::gemm::{Rows, Scratch};
use crate::vocabulary::Activation;

/// The weights of a feed-forward network: down(act(gate x) * up x), or without a gate, or with both interleaved in `up`.
pub struct FeedForward<'a> {
    pub gate: Option<Projection<'a>>,
    pub up: Projection<'a>,
    pub down: Projection<'a>,
    pub activation: Activation,
    /// x may be rounded to bf16: see `project`.
    pub rounded: bool,
}

/// Memory for what is between the products of one network, kept for the next.
pub type Room = Mutex<[Scratch; 3]>;

pub fn add_expert(
    residual: &Tensor,
    x: &Tensor,
    network: &FeedForward,
    rows: &[u32],
    weights: &[f32],
    room: &Room,
) -> Result<()> {
    residual.inplace_op1(&AddExpert { x, network, rows, weights, room })
}

struct AddExpert<'a> {
    x: &'a Tensor,
    network: &'a FeedForward<'a>,
    rows: &'a [u32],
    weights: &'a [f32],
    room: &'a Room,
}

impl AddExpert<'_> {
    fn run(&self, residual: &mut [f32], x: &[f32], hidden: usize, buffers: &mut [Scratch; 3]) -> Result<()> {
        let FeedForward { gate, up, down, activation, rounded } = self.network;
        let count = self.rows.len();
        let (up_width, (width, _)) = (up.sizes()?.1, down.sizes()?);
        let [first, second, result] = buffers;
        let (inner, result) = (first.reserve(count * up_width), result.reserve(count * hidden));
        let x = Rows { values: x, stride: hidden, rows: count, columns: hidden, chosen: Some(self.rows) };
        match gate {
            Some(gate) => {
                let gates = second.reserve(count * width);
                multiply(&x, &[*gate, *up], *rounded, &mut [gates, inner])?;
                combine(*activation, Some(gates), inner, up_width);
            }
            None => {
                multiply(&x, &[*up], *rounded, &mut [inner])?;
                combine(*activation, None, inner, up_width);
            }
        }
        // An interleaved pair of gate and up has left its result in the first half of each row.
        let inner = Rows { values: inner, stride: up_width, rows: count, columns: width, chosen: None };
        multiply(&inner, &[*down], *rounded, &mut [result])?;
        let to = Shared(residual.as_mut_ptr());
        let rows_per_piece = PIECE / hidden + 1;
        result.par_chunks(rows_per_piece * hidden).enumerate().for_each(|(piece, values)| {
            for (i, y) in (piece * rows_per_piece..).zip(values.chunks_exact(hidden)) {
                // SAFETY: the caller has checked that all rows lie in `residual`; they are distinct.
                let row = unsafe { std::slice::from_raw_parts_mut(to.at(self.rows[i] as usize * hidden), hidden) };
                let weight = self.weights[i];
                super::vectorised(|| row.iter_mut().zip(y).for_each(|(row, y)| *row += weight * y));
            }
        });
        Ok(())
    }
}

impl InplaceOp1 for AddExpert<'_> {
    fn name(&self) -> &'static str {
        "add_expert"
    }

    fn cpu_fwd(&self, residual: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let residual = values_mut(residual, layout)?;
        let (storage, x_layout) = self.x.storage_and_layout();
        let Storage::Cpu(storage) = &*storage else { bail!("experts run in CPU memory") };
        let (tokens, hidden) = x_layout.shape().dims2()?;
        if residual.len() != tokens * hidden || self.rows.iter().any(|row| *row as usize >= tokens) {
            bail!("rows of an expert lie outside the residual stream");
        }
        let mut distinct = self.rows.windows(2);
        if !distinct.all(|pair| pair[0] < pair[1]) || self.rows.len() != self.weights.len() {
            bail!("rows of an expert are not ascending, each with its weight");
        }
        let mut buffers = self.room.lock().expect("no panic under this lock");
        self.run(residual, values::<f32>(storage, x_layout)?, hidden, &mut buffers)
    }
}
