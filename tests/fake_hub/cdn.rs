//! The other host, where large files are: signed addresses that expire, ranges, and a network that can be slow, cut
//! connections, stall, fail and spoil bytes. It counts every byte it sends, by file and offset.
//!
//! Like the real one it refuses requests that bring the hub's token.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::http::{Reply, Request, serve, write, write_head};

/// Bytes written at once.
const BLOCK: usize = 64 << 10;

/// What goes wrong on the way. `Default`: nothing.
#[derive(Clone, Default)]
pub struct Network {
    /// Bytes per second, over all connections.
    pub bandwidth: Option<u64>,
    /// The connection at work is cut each time so many bytes have been sent.
    pub cut_every: Option<u64>,
    /// Every n-th request for a range is answered with 503.
    pub fail_every: Option<u64>,
    /// Every n-th request stops in the middle of the answer and stays silent.
    pub stall_every: Option<u64>,
    /// The byte at this offset of files that end so is sent wrong.
    pub spoiled: Option<(&'static str, u64)>,
    /// Signed addresses work for so many requests.
    pub expire_after: Option<u64>,
    /// So many requests are refused because they come too often, with these headers.
    pub limited: u64,
    pub limit_headers: Vec<(&'static str, &'static str)>,
    /// Ranges are ignored: the whole file is sent.
    pub whole_files: bool,
    /// From the n-th request on, the version of all files is another one.
    pub changes_after: Option<u64>,
    /// Nothing is sent beyond this offset of a file.
    pub ends_at: Option<u64>,
}

/// Bytes sent: first offset and length, in the order in which they went out.
pub type Sent = HashMap<PathBuf, Vec<(u64, u64)>>;

#[derive(Default)]
struct Counters {
    requests: u64,
    with_token: u64,
    bytes: u64,
    sent: Sent,
    /// Requests that each signature has been used for.
    uses: HashMap<String, u64>,
    /// When the link is free again.
    free: Option<Instant>,
}

/// Shared by all connections.
#[derive(Clone, Default)]
pub struct Cdn {
    pub address: String,
    pub network: Arc<Mutex<Network>>,
    counters: Arc<Mutex<Counters>>,
    files: Arc<Mutex<HashMap<String, PathBuf>>>,
}

impl Cdn {
    pub fn start() -> Self {
        let mut cdn = Self::default();
        let serving = cdn.clone();
        cdn.address = serve(move |request, stream| serving.answer(request, stream));
        cdn
    }

    /// A signed address for a file. Each is a new one.
    pub fn sign(&self, path: &Path) -> String {
        let mut files = self.files.lock().unwrap();
        let signature = format!("{:08x}", files.len() + 1);
        files.insert(signature.clone(), path.to_path_buf());
        format!("{}/xet-bridge-us/file?X-Amz-Expires=3600&X-Amz-Signature={signature}", self.address)
    }

    /// What has been sent since the last call.
    pub fn sent(&self) -> Sent {
        std::mem::take(&mut self.counters.lock().unwrap().sent)
    }

    pub fn requests(&self) -> u64 {
        self.counters.lock().unwrap().requests
    }

    /// How often somebody has brought a token here.
    pub fn tokens_seen(&self) -> u64 {
        self.counters.lock().unwrap().with_token
    }

    fn answer(&self, request: &Request, stream: &mut TcpStream) -> bool {
        let network = self.network.lock().unwrap().clone();
        let signature = request.path.split("X-Amz-Signature=").nth(1).unwrap_or_default().to_string();
        let file = self.files.lock().unwrap().get(&signature).cloned();
        let (number, uses) = {
            let mut counters = self.counters.lock().unwrap();
            counters.requests += 1;
            counters.with_token += request.headers.contains_key("authorization") as u64;
            let number = counters.requests;
            let uses = counters.uses.entry(signature).or_default();
            *uses += 1;
            (number, *uses)
        };
        let due = |every: Option<u64>| every.is_some_and(|every| number % every == 0);
        let Some(path) = file.filter(|_| !request.headers.contains_key("authorization")) else {
            return write(stream, request, &Reply::new("400 Bad Request", "<Error>InvalidArgument</Error>"));
        };
        if network.expire_after.is_some_and(|limit| uses > limit) {
            return write(stream, request, &Reply::new("403 Forbidden", "<Error>Request has expired</Error>"));
        }
        if network.limited > 0 {
            self.network.lock().unwrap().limited -= 1;
            let reply = Reply::new("429 Too Many Requests", "");
            let reply = network.limit_headers.iter().fold(reply, |reply, (name, value)| reply.with(name, *value));
            return write(stream, request, &reply);
        }
        if due(network.fail_every) {
            return write(stream, request, &Reply::new("503 Service Unavailable", "busy"));
        }
        let Ok(data) = File::open(&path) else {
            return write(stream, request, &Reply::new("404 Not Found", ""));
        };
        let size = data.metadata().unwrap().len();
        let version = if network.changes_after.is_some_and(|limit| number > limit) { "another" } else { "xet" };
        let etag = format!("\"{version}-{size}\"");
        let (first, end, reply) = match request.range().filter(|_| !network.whole_files) {
            None => (0, size, Reply::new("200 OK", "")),
            Some((first, _)) if first >= size => {
                let reply =
                    Reply::new("416 Range Not Satisfiable", "").with("Content-Range", format!("bytes */{size}"));
                return write(stream, request, &reply);
            }
            Some((first, last)) => {
                let last = last.min(size - 1);
                let range = format!("bytes {first}-{last}/{size}");
                (first, last + 1, Reply::new("206 Partial Content", "").with("Content-Range", range))
            }
        };
        let reply = Reply { length: end - first, ..reply.with("ETag", etag) };
        let stall_at = due(network.stall_every).then(|| first + (end - first) / 2);
        write_head(stream, &reply)
            && (request.method == "HEAD" || self.send(stream, &path, &data, first, end, stall_at, &network))
    }

    /// Sends bytes as fast as the link allows; false when the connection is over.
    #[allow(clippy::too_many_arguments)]
    fn send(
        &self,
        stream: &mut TcpStream,
        path: &Path,
        data: &File,
        first: u64,
        end: u64,
        stall_at: Option<u64>,
        network: &Network,
    ) -> bool {
        let mut block = vec![0u8; BLOCK];
        let mut at = first;
        let last = end.min(network.ends_at.unwrap_or(end).max(first));
        while at < last {
            if stall_at.is_some_and(|stall| at >= stall) {
                std::thread::sleep(Duration::from_secs(60));
                return false;
            }
            let mut length = BLOCK.min((last - at) as usize);
            let mut cut = false;
            let wait = {
                let mut counters = self.counters.lock().unwrap();
                if let Some(every) = network.cut_every {
                    let left = every - counters.bytes % every;
                    cut = left <= length as u64;
                    length = length.min(left as usize);
                }
                counters.bytes += length as u64;
                let now = Instant::now();
                let free = counters.free.unwrap_or(now).max(now);
                let takes =
                    network.bandwidth.map_or(Duration::ZERO, |b| Duration::from_secs_f64(length as f64 / b as f64));
                counters.free = Some(free + takes);
                free + takes - now
            };
            let block = &mut block[..length];
            data.read_exact_at(block, at).unwrap();
            if let Some((name, offset)) = network.spoiled
                && path.to_str().unwrap().ends_with(name)
                && (at..at + length as u64).contains(&offset)
            {
                block[(offset - at) as usize] ^= 1;
            }
            // Sleeps are coarse: a little ahead of the link is as good.
            if wait > Duration::from_millis(2) {
                std::thread::sleep(wait);
            }
            let sent = stream.write_all(block).is_ok();
            let mut counters = self.counters.lock().unwrap();
            let ranges = counters.sent.entry(path.to_path_buf()).or_default();
            match ranges.last_mut() {
                Some((start, sent)) if *start + *sent == at => *sent += length as u64,
                _ => ranges.push((at, length as u64)),
            }
            if !sent || cut {
                return false;
            }
            at += length as u64;
        }
        last == end
    }
}

/// How many bytes of a file were sent, and how many of them more than once.
pub fn counted(ranges: &[(u64, u64)]) -> (u64, u64) {
    let total: u64 = ranges.iter().map(|(_, length)| length).sum();
    let mut sorted = ranges.to_vec();
    sorted.sort();
    let (mut distinct, mut end) = (0, 0);
    for (start, length) in sorted {
        distinct += (start + length).max(end) - start.max(end);
        end = end.max(start + length);
    }
    (total, total - distinct)
}
