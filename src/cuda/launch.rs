//! Starts kernels with arguments that have been checked: every array is on one GPU, used in the order of one stream, of the
//! type that the kernel reads, and as long as it needs.
//!
//! `table.rs` says what each kernel takes, in the types of this file.

use std::marker::PhantomData;
use std::sync::Arc;

use half::{bf16, f16};

use super::array::{Array, Element};
use super::context::Context;
use super::kernels::{Arg, Grid, Name, THREADS};
use crate::error::{Error, Result, fault};

/// Most blocks of an elementwise kernel, whose threads then take several numbers each.
const MOST_BLOCKS: usize = 1 << 14;

impl Grid {
    /// As many threads as are useful for a kernel that meets `count` numbers one by one.
    pub(super) fn each(count: usize) -> Self {
        Self { blocks: (count.div_ceil(THREADS as usize).min(MOST_BLOCKS) as u32, 1), threads: THREADS }
    }

    /// One block per row.
    ///
    /// # Errors
    /// `unsupported` when there are more rows than blocks.
    pub(super) fn rows(rows: usize) -> Result<Self> {
        match u32::try_from(rows) {
            Ok(rows) if rows < 1 << 31 => Ok(Self { blocks: (rows, 1), threads: THREADS }),
            _ => Err(Error::unsupported(format!("{rows} rows are too many for one kernel"))
                .hint("use a smaller memory_budget")),
        }
    }

    /// Whether there is nothing to do.
    pub(super) fn is_empty(self) -> bool {
        self.blocks.0 == 0 || self.blocks.1 == 0
    }
}

/// A type of numbers as kernels see it.
pub trait Number {
    /// What the source of the kernels calls it.
    #[cfg(test)]
    const SPELLING: &'static str;

    fn is(element: Element) -> bool;
}

/// Numbers of 16 bits of any type, as bits.
pub struct Bits16;
/// Numbers of 32 bits of any type, as bits.
pub struct Bits32;
/// Addresses of f32 on the same GPU.
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

/// A parameter of a kernel, and what it is made of.
pub trait Parameter {
    type Given<'a>;

    /// The type in the source of the kernels.
    #[cfg(test)]
    fn spelling() -> String;

    /// Adds the argument `name` to a launch; where it is an array, the kernel meets `least` of its numbers.
    fn give<'a>(launch: &mut Launch<'a>, name: &str, given: Self::Given<'a>, least: usize) -> Result<()>;
}

/// An array that a kernel reads.
pub struct In<N>(PhantomData<N>);
/// An array that a kernel writes to, and may read.
pub struct Out<N>(PhantomData<N>);

impl<N: Number> Parameter for In<N> {
    type Given<'a> = &'a Array;

    #[cfg(test)]
    fn spelling() -> String {
        format!("const {}*", N::SPELLING)
    }

    fn give<'a>(launch: &mut Launch<'a>, name: &str, given: &'a Array, least: usize) -> Result<()> {
        launch.array::<N>(name, given, least)
    }
}

impl<N: Number> Parameter for Out<N> {
    type Given<'a> = &'a Array;

    #[cfg(test)]
    fn spelling() -> String {
        format!("{}*", N::SPELLING)
    }

    fn give<'a>(launch: &mut Launch<'a>, name: &str, given: &'a Array, least: usize) -> Result<()> {
        launch.array::<N>(name, given, least)
    }
}

/// An array that may be missing; the kernel then gets null.
impl<N: Number> Parameter for Option<In<N>> {
    type Given<'a> = Option<&'a Array>;

    #[cfg(test)]
    fn spelling() -> String {
        In::<N>::spelling()
    }

    fn give<'a>(launch: &mut Launch<'a>, name: &str, given: Option<&'a Array>, least: usize) -> Result<()> {
        match given {
            Some(given) => launch.array::<N>(name, given, least),
            None => launch.value(Arg::Address(0)),
        }
    }
}

impl Parameter for Indices {
    type Given<'a> = &'a Indices;

    #[cfg(test)]
    fn spelling() -> String {
        "const u32*".to_string()
    }

    fn give<'a>(launch: &mut Launch<'a>, name: &str, given: &'a Indices, least: usize) -> Result<()> {
        launch.array::<Bits32>(name, &given.array, least)
    }
}

impl Parameter for u32 {
    type Given<'a> = usize;

    #[cfg(test)]
    fn spelling() -> String {
        "u32".to_string()
    }

    fn give<'a>(launch: &mut Launch<'a>, name: &str, given: usize, _: usize) -> Result<()> {
        match u32::try_from(given) {
            Ok(value) => launch.value(Arg::U32(value)),
            Err(_) => fault!("kernel {}: {name} is {given}, more than 32 bits hold", launch.name.1),
        }
    }
}

impl Parameter for u64 {
    type Given<'a> = usize;

    #[cfg(test)]
    fn spelling() -> String {
        "u64".to_string()
    }

    fn give<'a>(launch: &mut Launch<'a>, _: &str, given: usize, _: usize) -> Result<()> {
        launch.value(Arg::U64(given as u64))
    }
}

impl Parameter for f32 {
    type Given<'a> = f32;

    #[cfg(test)]
    fn spelling() -> String {
        "float".to_string()
    }

    fn give<'a>(launch: &mut Launch<'a>, _: &str, given: f32, _: usize) -> Result<()> {
        launch.value(Arg::F32(given))
    }
}

/// Indices on a GPU that are known to be below their bounds, so that a kernel may follow them.
pub struct Indices {
    array: Array,
    /// For each column: one more than the largest index.
    bounds: Vec<usize>,
}

impl Indices {
    /// Rows of `columns` indices each.
    pub fn uploaded(context: &Arc<Context>, indices: &[u32], columns: usize) -> Result<Self> {
        let bound = |column| indices.iter().skip(column).step_by(columns).max().map_or(0, |most| *most as usize + 1);
        let bounds = (0..columns).map(bound).collect();
        let array = Array::uploaded(context, bytemuck::cast_slice(indices), &[indices.len()], Element::U32)?;
        Ok(Self { array, bounds })
    }

    /// One more than the largest index of a column; 0 where there is none.
    pub(super) fn bound(&self, column: usize) -> usize {
        self.bounds[column]
    }
}

/// A kernel that is about to start, with the arguments that it has been given so far.
pub struct Launch<'a> {
    name: Name,
    /// The array that came first: the others are on its GPU and its stream.
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

    fn array<N: Number>(&mut self, name: &str, array: &'a Array, least: usize) -> Result<()> {
        let kernel = self.name.1;
        let first = *self.first.get_or_insert(array);
        if !N::is(array.element()) {
            fault!("kernel {kernel}: {name} is {array:?}, of another type");
        }
        if array.len() < least {
            fault!("kernel {kernel}: {name} is {array:?}, and {least} numbers are needed");
        }
        if !Arc::ptr_eq(array.context(), first.context()) || array.stream() != first.stream() {
            fault!("kernel {kernel}: {name} is on another GPU or another stream than what came before it");
        }
        self.value(Arg::Address(array.address()?))
    }

    /// Puts the kernel on the stream of its arrays.
    ///
    /// # Safety
    /// The arguments are those of this kernel, in its order, and in this grid it meets no more numbers of each array than were
    /// asked for when it was given.
    pub(super) unsafe fn start(self, grid: Grid) -> Result<()> {
        let Some(first) = self.first else { fault!("kernel {} has no array", self.name.1) };
        // SAFETY: the caller promises that these are the kernel's arguments; `array` has checked that the addresses are of
        // this GPU, that the numbers are there, and that all are used and freed in the order of this stream.
        unsafe { first.context().launch(first.stream(), self.name, grid, &self.args) }
    }
}
