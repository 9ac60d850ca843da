//! Numbers in the memory of a GPU: whole arrays, or rows of one.

use std::sync::Arc;

use super::context::Context;
use super::driver_context::Stream;
use super::kernels::Arg;
use super::memory::Buffer;
use crate::error::Result;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    F32,
    Bf16,
    U8,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::U8 => 1,
        }
    }
}

/// Contiguous numbers; clones and rows share memory.
#[derive(Clone)]
pub struct Array {
    buffer: Arc<Buffer>,
    /// Bytes into the buffer.
    offset: usize,
    dims: Vec<usize>,
    element: Element,
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:?} {:?} on a GPU", self.element, self.dims)
    }
}

impl Array {
    /// An array with anything in it.
    pub fn new(context: &Arc<Context>, dims: &[usize], element: Element) -> Result<Self> {
        let bytes = dims.iter().product::<usize>() * element.bytes();
        Ok(Self::of(Buffer::new(context, bytes, Stream::Compute)?, dims, element))
    }

    /// What `buffer` holds.
    pub fn of(buffer: Buffer, dims: &[usize], element: Element) -> Self {
        Self { buffer: Arc::new(buffer), offset: 0, dims: dims.to_vec(), element }
    }

    pub fn zeros(context: &Arc<Context>, dims: &[usize], element: Element) -> Result<Self> {
        let array = Self::new(context, dims, element)?;
        context.clear(Stream::Compute, array.address(), 0, array.bytes())?;
        Ok(array)
    }

    /// A copy of `bytes` in the order of the computing stream.
    pub fn uploaded(context: &Arc<Context>, bytes: &[u8], dims: &[usize], element: Element) -> Result<Self> {
        let array = Self::new(context, dims, element)?;
        context.upload(array.address(), &bytes[..array.bytes()])?;
        Ok(array)
    }

    pub fn context(&self) -> &Arc<Context> {
        self.buffer.context()
    }

    pub fn address(&self) -> u64 {
        self.buffer.address() + self.offset as u64
    }

    pub fn element(&self) -> Element {
        self.element
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Rows, and the numbers in each.
    pub fn dims2(&self) -> (usize, usize) {
        let columns = self.dims.last().copied().unwrap_or(1);
        (self.len() / columns.max(1), columns)
    }

    /// Number of numbers.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> usize {
        self.len() * self.element.bytes()
    }

    /// As an argument of a kernel.
    pub fn arg(&self) -> Arg {
        Arg::Address(self.address())
    }

    /// All bytes, once the computing stream has made them.
    pub fn download(&self, to: &mut [u8]) -> Result<()> {
        self.context().download(Stream::Compute, self.address(), &mut to[..self.bytes()])
    }

    /// The same numbers in other dimensions, as many.
    pub fn reshaped(&self, dims: &[usize]) -> Self {
        debug_assert_eq!(dims.iter().product::<usize>(), self.len());
        Self { dims: dims.to_vec(), ..self.clone() }
    }

    /// `count` rows of the first dimension, in the same memory.
    pub fn rows(&self, first: usize, count: usize) -> Self {
        let row = self.bytes() / self.dims[0].max(1);
        let mut rows = self.clone();
        rows.dims[0] = count;
        rows.offset += first * row;
        rows
    }

    /// Copies `rows` to where row `first` begins.
    pub fn set_rows(&self, rows: &Self, first: usize) -> Result<()> {
        let row = self.bytes() / self.dims[0].max(1);
        self.context().copy(rows.address(), self.address() + (first * row) as u64, rows.bytes())
    }

    /// An array of f32 of the same dimensions, with anything in it.
    pub fn like(&self) -> Result<Self> {
        Self::new(self.context(), &self.dims, Element::F32)
    }

    /// Starts an elementwise kernel over `count` numbers on the computing stream.
    pub fn each(&self, name: &'static str, count: usize, args: &[Arg]) -> Result<()> {
        self.context().each(Stream::Compute, name, count, args)
    }
}
