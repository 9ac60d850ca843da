//! Reads files of the hub by offsets and prefetches ranges: many requests in flight, bounded in
//! number and bytes.
//!
//! Announced ranges are merged if they touch, split if they are large, and fetched in order within
//! the limits. A range that a reader waits for is fetched immediately. Nothing is written to disk,
//! and read data is dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::task::AbortHandle;

use super::client::{self, Http};
use super::fetch::fetch;
use super::resolve::RemoteFile;
use crate::error::{Error, Result};
use crate::hub::weights::source::{Announcement, FileRange, Tag};
use crate::progress::interrupt_requested;

/// Limits of a single request and of all requests together.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// The largest request in bytes: small enough that the first of many arrives soon, large enough
    /// to hide the latency.
    piece: u64,
    /// The largest number of requests in flight, and of unread pieces in memory.
    in_flight: usize,
}

impl Limits {
    /// With 50 ms latency and 80 MB/s per connection, enough for a link of 1 GB/s and more.
    pub(crate) const STREAM: Self = Self { piece: 8 << 20, in_flight: 24 };
    /// Data in flight is lost if a download is interrupted.
    pub(crate) const DOWNLOAD: Self = Self { piece: 4 << 20, in_flight: 16 };

    /// The most bytes in flight or unread in memory.
    pub(crate) const fn budget(self) -> u64 {
        self.piece * self.in_flight as u64
    }
}

const INTERRUPT_POLL: Duration = Duration::from_millis(100);
/// The tag of data that was not announced.
const UNANNOUNCED: Tag = Tag::MAX;

type PieceId = u64;

struct Piece {
    tag: Tag,
    order: u64,
    file: usize,
    range: Range<u64>,
    /// Announced bytes that have not been read.
    unread: u64,
    state: State,
}

enum State {
    Waiting,
    Flying(AbortHandle),
    Here(Arc<Vec<u8>>),
    Failed(Error),
}

impl Piece {
    fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }
}

#[derive(Default)]
struct Board {
    pieces: HashMap<PieceId, Piece>,
    /// By file and first byte.
    places: BTreeSet<(usize, u64, PieceId)>,
    /// Pieces that are not started, in the order of use.
    queue: BTreeSet<(u64, PieceId)>,
    tags: HashMap<Tag, Vec<PieceId>>,
    /// Bytes of pieces in flight or in memory.
    held: u64,
    flying: usize,
    next: PieceId,
}

impl Board {
    fn add(&mut self, tag: Tag, order: u64, file: usize, range: Range<u64>, unread: u64) -> PieceId {
        let id = self.next;
        self.next += 1;
        self.places.insert((file, range.start, id));
        self.queue.insert((order, id));
        self.tags.entry(tag).or_default().push(id);
        self.pieces.insert(id, Piece { tag, order, file, range, unread, state: State::Waiting });
        id
    }

    fn remove(&mut self, id: PieceId) {
        let Some(piece) = self.pieces.remove(&id) else { return };
        self.places.remove(&(piece.file, piece.range.start, id));
        let bytes = piece.bytes();
        match piece.state {
            State::Waiting => {
                self.queue.remove(&(piece.order, id));
            }
            State::Flying(task) => {
                task.abort();
                self.flying -= 1;
                self.held -= bytes;
            }
            State::Here(_) => self.held -= bytes,
            State::Failed(_) => (),
        }
        if let Some(ids) = self.tags.get_mut(&piece.tag) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.tags.remove(&piece.tag);
            }
        }
    }

    /// A piece that contains this byte.
    fn at(&self, file: usize, offset: u64, piece: u64) -> Option<PieceId> {
        let before = self.places.range((file, 0, 0)..=(file, offset, PieceId::MAX)).rev();
        // Pieces of different readers may overlap. Each is at most `piece` long.
        let near = before.take_while(|(_, start, _)| start + piece > offset);
        near.map(|(_, _, id)| *id).find(|id| self.pieces[id].range.contains(&offset))
    }
}

pub(crate) struct Ranges {
    http: Arc<Http>,
    files: Vec<Arc<RemoteFile>>,
    limits: Limits,
    board: Mutex<Board>,
    changed: Condvar,
}

impl Ranges {
    pub(crate) fn new(http: Arc<Http>, files: Vec<Arc<RemoteFile>>, limits: Limits) -> Arc<Self> {
        Arc::new(Self { http, files, limits, board: Mutex::default(), changed: Condvar::new() })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().expect("no panic under this lock")
    }

    /// Announces ranges, each of which will be read once.
    pub(crate) fn expect(self: &Arc<Self>, tag: Tag, announcement: Announcement) {
        let Announcement { order, max_gap, ranges } = announcement;
        let mut board = self.board();
        for (file, range, announced) in joined(ranges, max_gap) {
            // Bytes of gaps do not count: a piece is finished when all of its announced bytes are
            // read.
            for piece in cut(&range, self.limits.piece) {
                let unread = announced.iter().map(|part| overlap(part, &piece)).sum();
                if unread > 0 {
                    board.add(tag, order, file, piece, unread);
                }
            }
        }
        self.start_some(&mut board);
    }

    pub(crate) fn forget(self: &Arc<Self>, tags: &[Tag]) {
        let mut board = self.board();
        for tag in tags {
            for id in board.tags.get(tag).cloned().unwrap_or_default() {
                board.remove(id);
            }
        }
        self.start_some(&mut board);
    }

    /// Starts pieces in order within the limits.
    fn start_some(self: &Arc<Self>, board: &mut Board) {
        while board.flying < self.limits.in_flight
            && let Some(&(_, id)) = board.queue.first()
            && (board.held == 0 || board.held + board.pieces[&id].bytes() <= self.limits.budget())
        {
            self.start(board, id);
        }
    }

    fn start(self: &Arc<Self>, board: &mut Board, id: PieceId) {
        let piece = &board.pieces[&id];
        let (order, file, range) = (piece.order, self.files[piece.file].clone(), piece.range.clone());
        let ranges = self.clone();
        let task = client::spawn(async move {
            let outcome = fetch(&ranges.http, &file, range).await;
            ranges.arrived(id, outcome);
        });
        board.queue.remove(&(order, id));
        board.held += board.pieces[&id].bytes();
        board.flying += 1;
        board.pieces.get_mut(&id).expect("it is there").state = State::Flying(task);
    }

    fn arrived(self: &Arc<Self>, id: PieceId, outcome: Result<Vec<u8>>) {
        let mut board = self.board();
        // It may have been discarded in flight.
        let Some(piece) = board.pieces.get_mut(&id) else { return };
        let bytes = piece.bytes();
        let failed = outcome.is_err();
        piece.state = outcome.map_or_else(State::Failed, |data| State::Here(Arc::new(data)));
        board.flying -= 1;
        if failed {
            board.held -= bytes;
        }
        self.start_some(&mut board);
        drop(board);
        self.changed.notify_all();
    }

    /// Fills `buffer` from byte `offset` of a file. Unannounced data is fetched immediately.
    pub(crate) fn read(self: &Arc<Self>, file: usize, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset + buffer.len() as u64;
        if end > self.files[file].bytes {
            return Err(self.files[file].changed());
        }
        let mut at = offset;
        while at < end {
            let (id, data, range) = self.piece(file, at, end)?;
            let part = at..range.end.min(end);
            let from = (part.start - range.start) as usize;
            let bytes = (part.end - part.start) as usize;
            buffer[(part.start - offset) as usize..][..bytes].copy_from_slice(&data[from..from + bytes]);
            at = part.end;
            let mut board = self.board();
            if let Some(piece) = board.pieces.get_mut(&id) {
                piece.unread = piece.unread.saturating_sub(bytes as u64);
                if piece.unread == 0 {
                    board.remove(id);
                    self.start_some(&mut board);
                }
            }
        }
        Ok(())
    }

    /// Waits for the piece that contains byte `at`. If none was announced, one is made for the
    /// missing bytes up to `end`.
    fn piece(self: &Arc<Self>, file: usize, at: u64, end: u64) -> Result<(PieceId, Arc<Vec<u8>>, Range<u64>)> {
        let mut board = self.board();
        loop {
            let Some(id) = board.at(file, at, self.limits.piece) else {
                let next = board.places.range((file, at, 0)..).next().filter(|(other, ..)| *other == file);
                let missing = at..next.map_or(end, |(_, start, _)| *start).min(end);
                for piece in cut(&missing, self.limits.piece) {
                    let unread = piece.end - piece.start;
                    board.add(UNANNOUNCED, 0, file, piece, unread);
                }
                self.start_some(&mut board);
                continue;
            };
            let piece = &board.pieces[&id];
            match &piece.state {
                State::Here(data) => return Ok((id, data.clone(), piece.range.clone())),
                State::Failed(error) => {
                    let error = error.clone();
                    board.remove(id);
                    return Err(error);
                }
                // A piece with a waiting reader does not queue.
                State::Waiting => self.start(&mut board, id),
                State::Flying(_) => {
                    board = self.changed.wait_timeout(board, INTERRUPT_POLL).expect("no panic under this lock").0;
                    if interrupt_requested() {
                        return Err(Error::interrupted());
                    }
                }
            }
        }
    }
}

/// Merges ranges of one file with gaps up to `max_gap`, in file order, and keeps the announced
/// parts of each.
fn joined(ranges: Vec<FileRange>, max_gap: u64) -> Vec<(usize, Range<u64>, Vec<Range<u64>>)> {
    let mut by_file: BTreeMap<usize, Vec<Range<u64>>> = BTreeMap::new();
    for range in ranges.into_iter().filter(|range| !range.range.is_empty()) {
        by_file.entry(range.file).or_default().push(range.range);
    }
    let mut joined = Vec::new();
    for (file, mut ranges) in by_file {
        ranges.sort_by_key(|range| range.start);
        for group in ranges.chunk_by(|a, b| b.start <= a.end + max_gap) {
            let end = group.iter().map(|range| range.end).max().expect("no group is empty");
            joined.push((file, group[0].start..end, group.to_vec()));
        }
    }
    joined
}

/// Splits a range into pieces of equal size, none larger than `piece`.
fn cut(range: &Range<u64>, piece: u64) -> Vec<Range<u64>> {
    let bytes = range.end - range.start;
    let count = bytes.div_ceil(piece).max(1);
    let edge = |i: u64| range.start + (bytes as u128 * i as u128 / count as u128) as u64;
    (0..count).map(|i| edge(i)..edge(i + 1)).collect()
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_and_large_ranges_cut() {
        let range = |file, range: Range<u64>| FileRange { file, range };
        let ranges = || vec![range(1, 350..360), range(0, 7..9), range(1, 200..300), range(1, 0..200), range(1, 4..4)];
        let alone = |range: Range<u64>| std::iter::once(range).collect::<Vec<_>>();
        assert_eq!(
            joined(ranges(), 0),
            [(0, 7..9, alone(7..9)), (1, 0..300, vec![0..200, 200..300]), (1, 350..360, alone(350..360))]
        );
        assert_eq!(joined(ranges(), 50)[1], (1, 0..360, vec![0..200, 200..300, 350..360]));
        let pieces = cut(&(10..260), 100);
        assert_eq!(pieces.len(), 3);
        assert!(pieces.iter().all(|piece| piece.end - piece.start <= 100));
        assert!(pieces.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!((pieces[0].start, pieces[2].end), (10, 260));
    }
}
