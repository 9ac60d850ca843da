//! Counts of hits on a ladder of thresholds, for the features of one row that reach its lowest
//! rung.
//!
//! The record of a large model has millions of ladders, so a row consists of three arrays, without
//! an allocation per feature.

use serde::{Deserialize, Serialize};

/// The ladders of one row, for example of one norm, sequence and sign, in ascending order of
/// features.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ladders {
    features: Vec<u32>,
    /// Ladder i owns the counts `ends[i - 1]..ends[i]`.
    ends: Vec<u32>,
    counts: Vec<u32>,
}

/// The counts of one feature: for rung 0, 1, … the number of values at or beyond that rung, without
/// the zeros at the end. Counts never increase along the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder<'a> {
    pub feature: u32,
    pub counts: &'a [u32],
}

impl Ladder<'_> {
    /// The count at rung `rung`, 0 after the last one.
    pub fn at(&self, rung: usize) -> u32 {
        self.counts.get(rung).copied().unwrap_or(0)
    }
}

impl Ladders {
    pub fn len(&self) -> usize {
        self.features.len()
    }

    pub fn is_empty(&self) -> bool {
        self.features.is_empty()
    }

    /// Bytes of the row's arrays.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.features) + size_of_val(&*self.ends) + size_of_val(&*self.counts)
    }

    /// Appends a ladder.
    pub fn push(&mut self, feature: u32, counts: &[u32]) {
        self.features.push(feature);
        self.counts.extend_from_slice(counts);
        self.ends.push(self.counts.len() as u32);
    }

    /// Appends the ladders of another row. Its features must follow those of this row.
    pub fn append(&mut self, other: &Ladders) {
        let before = self.counts.len() as u32;
        self.features.extend_from_slice(&other.features);
        self.ends.extend(other.ends.iter().map(|end| before + end));
        self.counts.extend_from_slice(&other.counts);
    }

    pub fn iter(&self) -> impl Iterator<Item = Ladder<'_>> {
        (0..self.features.len()).map(|i| self.nth(i))
    }

    /// The ladder of `feature`, if it reaches the lowest rung.
    pub fn of(&self, feature: usize) -> Option<Ladder<'_>> {
        self.features.binary_search_by_key(&feature, |&feature| feature as usize).ok().map(|i| self.nth(i))
    }

    fn nth(&self, i: usize) -> Ladder<'_> {
        let begin = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        // A damaged record may refer to counts that do not exist. Its ladder is empty here, and
        // `stats` reports the damage.
        let counts = self.ends.get(i).and_then(|&end| self.counts.get(begin..end as usize));
        Ladder { feature: self.features[i], counts: counts.unwrap_or_default() }
    }

    /// True if every feature has an end, and the ends are ascending and match the counts.
    pub fn is_consistent(&self) -> bool {
        let ascending = self.ends.windows(2).all(|pair| pair[0] <= pair[1]);
        ascending
            && self.ends.len() == self.features.len()
            && self.ends.last().copied().unwrap_or(0) as usize == self.counts.len()
    }
}

impl FromIterator<(u32, Vec<u32>)> for Ladders {
    fn from_iter<I: IntoIterator<Item = (u32, Vec<u32>)>>(ladders: I) -> Self {
        let mut row = Self::default();
        ladders.into_iter().for_each(|(feature, counts)| row.push(feature, &counts));
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_found() {
        let mut row: Ladders = [(2, vec![5, 3]), (7, vec![1])].into_iter().collect();
        row.append(&[(9, vec![4, 4, 2])].into_iter().collect());
        assert_eq!((row.len(), row.is_consistent()), (3, true));
        assert_eq!(row.of(9), Some(Ladder { feature: 9, counts: &[4, 4, 2] }));
        assert_eq!(row.of(2).map(|ladder| (ladder.at(0), ladder.at(1), ladder.at(2))), Some((5, 3, 0)));
        assert_eq!(row.of(3), None);
        assert_eq!(row.iter().map(|ladder| ladder.feature).collect::<Vec<_>>(), [2, 7, 9]);
    }

    #[test]
    fn a_row_that_lacks_counts_is_inconsistent_and_harmless() {
        let row = Ladders { features: vec![1, 2], ends: vec![1, 5], counts: vec![3] };
        assert!(!row.is_consistent());
        assert_eq!(row.iter().last(), Some(Ladder { feature: 2, counts: &[] }));
        assert!(!Ladders { features: vec![1], ..Ladders::default() }.is_consistent());
    }
}
