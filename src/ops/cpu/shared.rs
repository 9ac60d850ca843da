//! A result that several tasks write at once, each to places of its own.

/// Where the result begins. Whoever hands it to tasks sees to it that no two of them write to the same place.
#[derive(Clone, Copy)]
pub(super) struct Shared(pub *mut f32);

// SAFETY: tasks write to distinct places.
unsafe impl Send for Shared {}
unsafe impl Sync for Shared {}

impl Shared {
    /// # Safety
    /// `offset` lies within the result, and no other task uses that place meanwhile.
    pub unsafe fn at(self, offset: usize) -> *mut f32 {
        unsafe { self.0.add(offset) }
    }
}
