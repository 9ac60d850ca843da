//! A result that several tasks write at once, each to places of its own.

use std::marker::PhantomData;

/// Numbers that are borrowed for all tasks together.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    begin: *mut f32,
    count: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: to have it does nothing; whoever writes to a part promises that no other task is there.
unsafe impl Send for Shared<'_> {}
// SAFETY: as for `Send`.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub fn of(values: &'a mut [f32]) -> Self {
        Self { begin: values.as_mut_ptr(), count: values.len(), borrowed: PhantomData }
    }

    pub(super) fn begin(self) -> *mut f32 {
        self.begin
    }

    /// `count` numbers from `first` on.
    ///
    /// # Panics
    /// When there are not so many.
    ///
    /// # Safety
    /// Nobody else uses them while they are borrowed here.
    pub unsafe fn part(self, first: usize, count: usize) -> &'a mut [f32] {
        assert!(count <= self.count && first <= self.count - count, "a part of a shared result");
        // SAFETY: the part lies within what is borrowed, and the caller promises that it is nobody else's.
        unsafe { std::slice::from_raw_parts_mut(self.begin.add(first), count) }
    }
}
