//! Work that may exceed the memory of a device, and is retried on smaller pieces.

use std::ops::Range;

use crate::error::Result;

/// The result of an attempt that had enough memory and has begun to modify shared tensors. It is
/// final, even if it is an error.
pub(super) struct Changed(pub Result<()>);

/// Calls `attempt` on `rows`. If the device runs out of memory, it is called on halves of them.
///
/// As long as an attempt has modified nothing, it returns its errors as `Err`, and an out-of-memory
/// error is retried. Afterwards it returns its result as `Changed`, which is never retried.
pub(super) fn split_on_oom(
    rows: Range<usize>,
    attempt: &mut impl FnMut(Range<usize>) -> Result<Changed>,
) -> Result<()> {
    match attempt(rows.clone()) {
        Ok(Changed(outcome)) => outcome,
        Err(error) if rows.len() > 1 && error.is_oom() => {
            let middle = rows.start + rows.len() / 2;
            split_on_oom(rows.start..middle, attempt)?;
            split_on_oom(middle..rows.end, attempt)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, Kind};

    #[test]
    fn what_has_changed_nothing_is_tried_in_halves_and_what_has_is_not() {
        let full = || Error::new(Kind::Oom, "full");
        let mut done = Vec::new();
        let outcome = split_on_oom(3..10, &mut |rows| {
            if rows.len() > 2 {
                return Err(full());
            }
            done.push(rows);
            Ok(Changed(Ok(())))
        });
        assert_eq!(outcome, Ok(()));
        assert_eq!(done, [3..4, 4..6, 6..8, 8..10]);
        let mut calls = 0;
        let outcome = split_on_oom(0..8, &mut |_| {
            calls += 1;
            Ok(Changed(Err(full())))
        });
        assert_eq!((outcome, calls), (Err(full()), 1));
        let outcome = split_on_oom(0..8, &mut |_| Err(Error::interrupted()));
        assert_eq!(outcome, Err(Error::interrupted()));
        assert_eq!(split_on_oom(0..1, &mut |_| Err(full())), Err(full()));
    }
}
