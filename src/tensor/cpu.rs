//! Access to the values of tensors in CPU memory.

use std::cell::RefCell;
use std::ops::Range;

use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, StorageRef, WithDType};

use super::errors::convert_error;
use crate::error::{Result, fault};

/// A read-only view of a contiguous tensor's values.
pub struct View<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

impl<'a> View<'a> {
    /// # Errors
    /// `internal` if the tensor is not contiguous.
    pub fn of(x: &'a candle_core::Tensor) -> Result<Self> {
        let (storage, layout) = x.storage_and_layout();
        match layout.contiguous_offsets() {
            Some((begin, end)) => Ok(Self { storage, range: begin..end }),
            None => fault!("an operand is not contiguous"),
        }
    }

    /// All values in row-major order.
    ///
    /// # Errors
    /// `internal` if they are of another type.
    pub fn values<T: WithDType>(&self) -> Result<&[T]> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(&convert_error(storage.as_slice::<T>())?[self.range.clone()]),
            _ => fault!("an operand is not in the memory of the CPU"),
        }
    }
}

/// Calls `f` on the values of a contiguous f32 tensor, which it may modify in place. All tensors
/// that share this memory see the change.
///
/// # Errors
/// `internal` if the tensor is not contiguous or not f32, and the errors of `f`.
pub fn modify_in_place(x: &candle_core::Tensor, f: impl FnMut(&mut [f32]) -> Result<()>) -> Result<()> {
    /// The function to call, and its result.
    struct Change<F>(RefCell<F>, RefCell<Result<()>>);

    impl<F: FnMut(&mut [f32]) -> Result<()>> InplaceOp1 for Change<F> {
        fn name(&self) -> &'static str {
            "change"
        }

        fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
            let CpuStorage::F32(values) = storage else { candle_core::bail!("expected f32") };
            let Some((begin, end)) = layout.contiguous_offsets() else {
                candle_core::bail!("expected rows in one piece")
            };
            let outcome = (self.0.borrow_mut())(&mut values[begin..end]);
            *self.1.borrow_mut() = outcome;
            Ok(())
        }
    }

    let modify_in_place = Change(RefCell::new(f), RefCell::new(Ok(())));
    convert_error(x.inplace_op1(&modify_in_place))?;
    modify_in_place.1.into_inner()
}
