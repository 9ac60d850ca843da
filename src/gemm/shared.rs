//! An output that several tasks write in parallel, each at positions of its own.

use std::marker::PhantomData;

/// Numbers that are mutably borrowed for all tasks together.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    begin: *mut f32,
    count: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: the value alone gives no access. A task that uses a part promises that no other task
// does.
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

    /// The `count` numbers from `first` on.
    ///
    /// # Panics
    /// If they exceed the borrowed numbers.
    ///
    /// # Safety
    /// Nobody else accesses them while they are borrowed here.
    pub unsafe fn part(self, first: usize, count: usize) -> &'a mut [f32] {
        assert!(count <= self.count && first <= self.count - count, "a part of a shared result");
        // SAFETY: the part lies within the borrowed numbers, and the caller promises exclusive
        // access.
        unsafe { std::slice::from_raw_parts_mut(self.begin.add(first), count) }
    }
}
