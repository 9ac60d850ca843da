//! Numbers in the memory of a GPU: whole arrays, or rows of one.

use std::ops::Range;
use std::sync::Arc;

use super::context::Context;
use super::driver_context::Stream;
use super::memory::{self, Buffer};
use crate::error::{Result, fault};

/// What an array is made of.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    F32,
    Bf16,
    F16,
    U8,
    U32,
    U64,
    /// Where something is in the memory of the same GPU.
    Address,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Self::U64 | Self::Address => 8,
            Self::F32 | Self::U32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::U8 => 1,
        }
    }
}

/// Contiguous numbers; clones and rows share memory.
#[derive(Clone)]
pub struct Array {
    buffer: Arc<Buffer>,
    /// Bytes into the buffer. From there on it has as many as the elements take.
    offset: usize,
    dims: Vec<usize>,
    element: Element,
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:?} {:?} on a GPU", self.element, self.dims)
    }
}

fn bytes(dims: &[usize], element: Element) -> usize {
    dims.iter().product::<usize>() * element.bytes()
}

impl Array {
    /// An array with anything in it.
    pub fn new(context: &Arc<Context>, dims: &[usize], element: Element) -> Result<Self> {
        Ok(Self::of(Buffer::new(context, bytes(dims, element), Stream::Compute)?, dims, element))
    }

    /// What `buffer` holds, which was made for it.
    fn of(buffer: Buffer, dims: &[usize], element: Element) -> Self {
        assert_eq!(buffer.bytes(), bytes(dims, element), "an array fills its buffer");
        Self { buffer: Arc::new(buffer), offset: 0, dims: dims.to_vec(), element }
    }

    pub fn zeros(context: &Arc<Context>, dims: &[usize], element: Element) -> Result<Self> {
        let array = Self::new(context, dims, element)?;
        array.buffer.fill(0)?;
        Ok(array)
    }

    /// A copy of `bytes` in the order of the computing stream.
    pub fn uploaded(context: &Arc<Context>, bytes: &[u8], dims: &[usize], element: Element) -> Result<Self> {
        let array = Self::new(context, dims, element)?;
        array.buffer.upload(0, &bytes[..array.bytes()])?;
        Ok(array)
    }

    /// One array on the copying stream of each of `contexts`, with the same bytes in all: `fill` gets an offset and where to
    /// put what is there, once for every piece: `phase` bytes (below `PAGE`) behind the beginning of a page. Their bytes are
    /// there when this returns, and `complete` makes them arrays like any other.
    pub fn received(
        contexts: &[&Arc<Context>],
        dims: &[usize],
        element: Element,
        phase: usize,
        fill: impl FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<Vec<Self>> {
        let buffers = memory::receive(contexts, bytes(dims, element), phase, fill)?;
        Ok(buffers.into_iter().map(|buffer| Self::of(buffer, dims, element)).collect())
    }

    /// An array with anything in it, on the same GPU and in the order of the same stream.
    pub fn beside(&self, dims: &[usize], element: Element) -> Result<Self> {
        let buffer = Buffer::new(self.context(), bytes(dims, element), self.buffer.stream())?;
        Ok(Self::of(buffer, dims, element))
    }

    /// The same of which every byte is `value`.
    pub fn filled_beside(&self, value: u8, dims: &[usize], element: Element) -> Result<Self> {
        let array = self.beside(dims, element)?;
        array.buffer.fill(value)?;
        Ok(array)
    }

    /// Waits until what the calling thread has done to an array on the copying stream is complete: from then on it is used in
    /// the order of the computing stream.
    ///
    /// # Errors
    /// `internal` where its memory is shared.
    pub fn complete(mut self) -> Result<Self> {
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => buffer.hand_over()?,
            None => fault!("{self:?} is shared before it is complete"),
        }
        Ok(self)
    }

    pub fn context(&self) -> &Arc<Context> {
        self.buffer.context()
    }

    /// The stream in whose order the array is used.
    pub(super) fn stream(&self) -> Stream {
        self.buffer.stream()
    }

    /// Where it begins on the GPU; all its numbers lie there.
    pub(super) fn address(&self) -> Result<u64> {
        self.buffer.address_of(self.range())
    }

    /// Its bytes of the buffer.
    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes()
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
        bytes(&self.dims, self.element)
    }

    /// All bytes, once the stream has made them.
    pub fn download(&self, to: &mut [u8]) -> Result<()> {
        self.buffer.download(self.offset, &mut to[..self.bytes()])
    }

    /// The same numbers in other dimensions.
    ///
    /// # Errors
    /// `internal` where they are not as many.
    pub fn reshaped(&self, dims: &[usize]) -> Result<Self> {
        if dims.iter().product::<usize>() != self.len() {
            fault!("{:?} cannot become {dims:?}", self.dims);
        }
        Ok(Self { dims: dims.to_vec(), ..self.clone() })
    }

    /// `count` rows of the first dimension, in the same memory.
    ///
    /// # Errors
    /// `internal` where there are not so many.
    pub fn rows(&self, first: usize, count: usize) -> Result<Self> {
        match self.dims.first() {
            Some(rows) if first.checked_add(count).is_some_and(|end| end <= *rows) => {
                let mut part = self.clone();
                part.dims[0] = count;
                part.offset += first * (self.bytes() / (*rows).max(1));
                Ok(part)
            }
            _ => fault!("rows {first}..{} of {:?}", first.saturating_add(count), self.dims),
        }
    }

    /// Copies `rows` to where row `first` begins.
    pub fn set_rows(&self, rows: &Self, first: usize) -> Result<()> {
        let row = self.bytes() / self.dims[0].max(1);
        self.buffer.copy(self.offset + first * row, &rows.buffer, rows.range())
    }

    /// An array of f32 of the same dimensions, with anything in it.
    pub fn like(&self) -> Result<Self> {
        Self::new(self.context(), &self.dims, Element::F32)
    }
}
