//! Arrays of numbers in GPU memory, and views of their rows.

use std::ops::Range;
use std::sync::Arc;

use super::context::Context;
use super::driver_context::Stream;
use super::memory::{self, Buffer};
use crate::error::{Result, fault};

/// The element type of an array.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Element {
    F32,
    Bf16,
    F16,
    U8,
    U32,
    U64,
    /// An address in the memory of the same GPU.
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

/// A contiguous array. Clones and views of rows share its memory.
#[derive(Clone)]
pub struct Array {
    buffer: Arc<Buffer>,
    /// Offset into the buffer in bytes. All elements lie within the buffer.
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
    /// An uninitialised array.
    pub fn new(context: &Arc<Context>, dims: &[usize], element: Element) -> Result<Self> {
        Ok(Self::of(Buffer::new(context, bytes(dims, element), Stream::Compute)?, dims, element))
    }

    /// The array that fills `buffer`.
    fn of(buffer: Buffer, dims: &[usize], element: Element) -> Self {
        assert_eq!(buffer.bytes(), bytes(dims, element), "an array fills its buffer");
        Self { buffer: Arc::new(buffer), offset: 0, dims: dims.to_vec(), element }
    }

    pub fn zeros(context: &Arc<Context>, dims: &[usize], element: Element) -> Result<Self> {
        let array = Self::new(context, dims, element)?;
        array.buffer.fill(0)?;
        Ok(array)
    }

    /// An array with a copy of `bytes`. The copy is ordered by the compute stream.
    pub fn uploaded(context: &Arc<Context>, bytes: &[u8], dims: &[usize], element: Element) -> Result<Self> {
        let array = Self::new(context, dims, element)?;
        array.buffer.upload(0, &bytes[..array.bytes()])?;
        Ok(array)
    }

    /// One array per context, all with the same bytes, on the copy stream. `fill` is called for
    /// each piece with its offset in bytes and with the pinned memory to write it to, which begins
    /// `phase` bytes (less than `PAGE`) after the start of a page. The copies are complete when
    /// this function returns. The arrays belong to the copy stream until `hand_to_compute_stream`.
    pub fn broadcast(
        contexts: &[&Arc<Context>],
        dims: &[usize],
        element: Element,
        phase: usize,
        fill: impl FnMut(usize, &mut [u8]) -> Result<()>,
    ) -> Result<Vec<Self>> {
        let buffers = memory::broadcast(contexts, bytes(dims, element), phase, fill)?;
        Ok(buffers.into_iter().map(|buffer| Self::of(buffer, dims, element)).collect())
    }

    /// An uninitialised array on the same GPU and the same stream.
    pub fn uninit_on_same_stream(&self, dims: &[usize], element: Element) -> Result<Self> {
        let buffer = Buffer::new(self.context(), bytes(dims, element), self.buffer.stream())?;
        Ok(Self::of(buffer, dims, element))
    }

    /// An array on the same GPU and the same stream, with every byte set to `value`.
    pub fn filled_on_same_stream(&self, value: u8, dims: &[usize], element: Element) -> Result<Self> {
        let array = self.uninit_on_same_stream(dims, element)?;
        array.buffer.fill(value)?;
        Ok(array)
    }

    /// Waits for the work of this thread on the copy stream. From then on the array is used on the
    /// compute stream.
    ///
    /// # Errors
    /// `internal` if the array shares its memory.
    pub fn hand_to_compute_stream(mut self) -> Result<Self> {
        match Arc::get_mut(&mut self.buffer) {
            Some(buffer) => buffer.hand_to_compute_stream()?,
            None => fault!("{self:?} is shared before it is complete"),
        }
        Ok(self)
    }

    pub fn context(&self) -> &Arc<Context> {
        self.buffer.context()
    }

    /// The stream that uses the array.
    pub(super) fn stream(&self) -> Stream {
        self.buffer.stream()
    }

    /// The address of the first element on the GPU.
    pub(super) fn address(&self) -> Result<u64> {
        self.buffer.address_of(self.range())
    }

    /// The byte range within the buffer.
    fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes()
    }

    pub fn element(&self) -> Element {
        self.element
    }

    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of rows and of columns. The last dimension is the columns.
    pub fn dims2(&self) -> (usize, usize) {
        let columns = self.dims.last().copied().unwrap_or(1);
        (self.len() / columns.max(1), columns)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn bytes(&self) -> usize {
        bytes(&self.dims, self.element)
    }

    /// Copies all bytes to the host, after waiting for the stream.
    pub fn download(&self, to: &mut [u8]) -> Result<()> {
        self.buffer.download(self.offset, &mut to[..self.bytes()])
    }

    /// The same elements with other dimensions.
    ///
    /// # Errors
    /// `internal` if the number of elements differs.
    pub fn reshaped(&self, dims: &[usize]) -> Result<Self> {
        if dims.iter().product::<usize>() != self.len() {
            fault!("{:?} cannot become {dims:?}", self.dims);
        }
        Ok(Self { dims: dims.to_vec(), ..self.clone() })
    }

    /// A view of `count` rows of the first dimension.
    ///
    /// # Errors
    /// `internal` if the array has fewer rows.
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

    /// Copies `rows` over the rows from `first` on.
    pub fn set_rows(&self, rows: &Self, first: usize) -> Result<()> {
        let row = self.bytes() / self.dims[0].max(1);
        self.buffer.copy(self.offset + first * row, &rows.buffer, rows.range())
    }

    /// An uninitialised f32 array with the same dimensions.
    pub fn uninit_like(&self) -> Result<Self> {
        Self::new(self.context(), &self.dims, Element::F32)
    }
}
