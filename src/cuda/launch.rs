//! Launches kernels with checked arguments: all arrays are on one GPU and one stream, have the
//! element type that the kernel expects, and are long enough.
//!
//! `table.rs` declares the parameters of each kernel, with the types of this file.

use std::marker::PhantomData;
use std::sync::Arc;

use half::{bf16, f16};

use super::array::{Array, Element};
use super::context::Context;
use super::kernels::{Arg, Grid, Name, THREADS};
use crate::error::{Error, Result, fault};

/// The largest number of blocks of an elementwise kernel. Each thread then processes several
/// elements.
const MAX_BLOCKS: usize = 1 << 14;

impl Grid {
    /// The grid for an elementwise kernel over `count` elements.
    pub(super) fn each(count: usize) -> Self {
        Self { blocks: (count.div_ceil(THREADS as usize).min(MAX_BLOCKS) as u32, 1), threads: THREADS }
    }

    /// One block per row.
    ///
    /// # Errors
    /// `unsupported` if there are more rows than blocks in a grid.
    pub(super) fn rows(rows: usize) -> Result<Self> {
        match u32::try_from(rows) {
            Ok(rows) if rows < 1 << 31 => Ok(Self { blocks: (rows, 1), threads: THREADS }),
            _ => Err(Error::unsupported(format!("{rows} rows are too many for one kernel"))
                .hint("use a smaller memory_budget")),
        }
    }

    /// True if there is nothing to do.
    pub(super) fn is_empty(self) -> bool {
        self.blocks.0 == 0 || self.blocks.1 == 0
    }
}

/// An element type as kernels declare it.
pub trait Number {
    /// Its name in the source of the kernels.
    #[cfg(test)]
    const SPELLING: &'static str;

    fn is(element: Element) -> bool;
}

/// Any 16-bit elements, as bits.
pub struct Bits16;
/// Any 32-bit elements, as bits.
pub struct Bits32;
/// Addresses of f32 elements on the same GPU.
pub struct Address;

macro_rules! numbers {
    ($($number:ty: $spelling:literal is $($element:ident)|+;)+) => {
        $(impl Number for $number {
            #[cfg(test)]
            const SPELLING: &'static str = $spelling;

            fn is(element: Element) -> bool {
                matches!(element, $(Element::$element)|+)
            }
        })+
    };
}

numbers! {
    f32: "float" is F32;
    bf16: "bf16" is Bf16;
    f16: "unsigned short" is F16;
    u8: "u8" is U8;
    u64: "u64" is U64;
    Bits16: "unsigned short" is Bf16 | F16;
    Bits32: "u32" is F32 | U32;
    Address: "float*" is Address;
}

/// The type of a kernel's parameter, with the type of its argument in Rust.
pub trait Parameter {
    type Argument<'a>;

    /// The type in the source of the kernels.
    #[cfg(test)]
    fn spelling() -> String;

    /// Adds the argument `name` to a launch. For an array, `min_len` is the number of elements that
    /// the kernel accesses.
    fn add_to<'a>(launch: &mut Launch<'a>, name: &str, argument: Self::Argument<'a>, min_len: usize) -> Result<()>;
}

/// An array that a kernel reads.
pub struct In<N>(PhantomData<N>);
/// An array that a kernel writes, and may read.
pub struct Out<N>(PhantomData<N>);

impl<N: Number> Parameter for In<N> {
    type Argument<'a> = &'a Array;

    #[cfg(test)]
    fn spelling() -> String {
        format!("const {}*", N::SPELLING)
    }

    fn add_to<'a>(launch: &mut Launch<'a>, name: &str, argument: &'a Array, min_len: usize) -> Result<()> {
        launch.array::<N>(name, argument, min_len)
    }
}

impl<N: Number> Parameter for Out<N> {
    type Argument<'a> = &'a Array;

    #[cfg(test)]
    fn spelling() -> String {
        format!("{}*", N::SPELLING)
    }

    fn add_to<'a>(launch: &mut Launch<'a>, name: &str, argument: &'a Array, min_len: usize) -> Result<()> {
        launch.array::<N>(name, argument, min_len)
    }
}

/// An optional array. The kernel gets a null pointer if it is missing.
impl<N: Number> Parameter for Option<In<N>> {
    type Argument<'a> = Option<&'a Array>;

    #[cfg(test)]
    fn spelling() -> String {
        In::<N>::spelling()
    }

    fn add_to<'a>(launch: &mut Launch<'a>, name: &str, argument: Option<&'a Array>, min_len: usize) -> Result<()> {
        match argument {
            Some(argument) => launch.array::<N>(name, argument, min_len),
            None => launch.value(Arg::Address(0)),
        }
    }
}

impl Parameter for Indices {
    type Argument<'a> = &'a Indices;

    #[cfg(test)]
    fn spelling() -> String {
        "const u32*".to_string()
    }

    fn add_to<'a>(launch: &mut Launch<'a>, name: &str, argument: &'a Indices, min_len: usize) -> Result<()> {
        launch.array::<Bits32>(name, &argument.array, min_len)
    }
}

impl Parameter for u32 {
    type Argument<'a> = usize;

    #[cfg(test)]
    fn spelling() -> String {
        "u32".to_string()
    }

    fn add_to<'a>(launch: &mut Launch<'a>, name: &str, argument: usize, _: usize) -> Result<()> {
        match u32::try_from(argument) {
            Ok(value) => launch.value(Arg::U32(value)),
            Err(_) => fault!("kernel {}: {name} is {argument}, more than 32 bits hold", launch.name.1),
        }
    }
}

impl Parameter for u64 {
    type Argument<'a> = usize;

    #[cfg(test)]
    fn spelling() -> String {
        "u64".to_string()
    }

    fn add_to<'a>(launch: &mut Launch<'a>, _: &str, argument: usize, _: usize) -> Result<()> {
        launch.value(Arg::U64(argument as u64))
    }
}

impl Parameter for f32 {
    type Argument<'a> = f32;

    #[cfg(test)]
    fn spelling() -> String {
        "float".to_string()
    }

    fn add_to<'a>(launch: &mut Launch<'a>, _: &str, argument: f32, _: usize) -> Result<()> {
        launch.value(Arg::F32(argument))
    }
}

/// Indices on a GPU whose largest values are known, so that the arrays they index can be checked.
pub struct Indices {
    array: Array,
    /// For each column, one more than its largest index.
    bounds: Vec<usize>,
}

impl Indices {
    /// Uploads rows of `columns` indices each.
    pub fn uploaded(context: &Arc<Context>, indices: &[u32], columns: usize) -> Result<Self> {
        let bound = |column| indices.iter().skip(column).step_by(columns).max().map_or(0, |most| *most as usize + 1);
        let bounds = (0..columns).map(bound).collect();
        let array = Array::uploaded(context, bytemuck::cast_slice(indices), &[indices.len()], Element::U32)?;
        Ok(Self { array, bounds })
    }

    /// One more than the largest index of a column, or 0 for an empty column.
    pub(super) fn bound(&self, column: usize) -> usize {
        self.bounds[column]
    }
}

/// A kernel launch under construction, with the arguments so far.
pub struct Launch<'a> {
    name: Name,
    /// The first array. All others must be on its GPU and its stream.
    first: Option<&'a Array>,
    args: Vec<Arg>,
}

impl<'a> Launch<'a> {
    pub(super) fn of(name: Name) -> Self {
        Self { name, first: None, args: Vec::new() }
    }

    fn value(&mut self, value: Arg) -> Result<()> {
        self.args.push(value);
        Ok(())
    }

    fn array<N: Number>(&mut self, name: &str, array: &'a Array, min_len: usize) -> Result<()> {
        let kernel = self.name.1;
        let first = *self.first.get_or_insert(array);
        if !N::is(array.element()) {
            fault!("kernel {kernel}: {name} is {array:?}, of another type");
        }
        if array.len() < min_len {
            fault!("kernel {kernel}: {name} is {array:?}, and {min_len} numbers are needed");
        }
        if !Arc::ptr_eq(array.context(), first.context()) || array.stream() != first.stream() {
            fault!("kernel {kernel}: {name} is on another GPU or another stream than what came before it");
        }
        self.value(Arg::Address(array.address()?))
    }

    /// Puts the kernel on the stream of its arrays.
    ///
    /// # Safety
    /// The arguments are those of this kernel, in its order. In this grid the kernel accesses no
    /// more elements of each array than the `min_len` with which it was added.
    pub(super) unsafe fn start(self, grid: Grid) -> Result<()> {
        let Some(first) = self.first else { fault!("kernel {} has no array", self.name.1) };
        // SAFETY: the caller promises that these are the kernel's arguments. `array` checked that
        // the addresses are of this GPU, that the arrays are long enough, and that they are used
        // and freed on this stream.
        unsafe { first.context().launch(first.stream(), self.name, grid, &self.args) }
    }
}
