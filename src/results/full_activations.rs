//! `activations.safetensors`: every norm output, written as it is made and never held in memory.
//!
//! All shapes are known beforehand, so the header comes first and each piece goes to its place. The file gets its name
//! only when all tensors are complete.

use std::collections::HashMap;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::json;
use tempfile::NamedTempFile;

use super::atomic;
use crate::error::{Error, Result};

pub const FILE: &str = "activations.safetensors";

pub struct FullActivations {
    path: PathBuf,
    file: NamedTempFile,
    /// Absolute offset and length of each tensor, bytes.
    places: HashMap<String, (u64, u64)>,
    missing: u64,
}

impl FullActivations {
    /// `tensors`: name and shape of each f32 tensor, in file order.
    pub fn create(folder: &str, tensors: &[(String, Vec<usize>)]) -> Result<Self> {
        let path = PathBuf::from(folder).join(FILE);
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".into(), json!({ "format": "pt" }));
        let mut offset = 0u64;
        let mut places = HashMap::new();
        for (name, shape) in tensors {
            let bytes = shape.iter().product::<usize>() as u64 * 4;
            header.insert(
                name.clone(),
                json!({ "dtype": "F32", "shape": shape, "data_offsets": [offset, offset + bytes] }),
            );
            places.insert(name.clone(), (offset, bytes));
            offset += bytes;
        }
        let mut header = serde_json::to_vec(&header).expect("a JSON object");
        header.resize(header.len().next_multiple_of(8), b' ');
        let begin = 8 + header.len() as u64;
        for place in places.values_mut() {
            place.0 += begin;
        }
        let file = atomic::create(&path)?;
        let full = Self { path, file, places, missing: offset };
        full.put(&(header.len() as u64).to_le_bytes(), 0)?;
        full.put(&header, 8)?;
        Ok(full)
    }

    fn put(&self, data: &[u8], offset: u64) -> Result<()> {
        let writing = || format!("writing {}", self.path.display());
        self.file.as_file().write_all_at(data, offset).map_err(|e| Error::io(writing(), &e).hint("is the disk full?"))
    }

    /// Writes `values` from element `start` of a tensor on.
    pub fn write(&mut self, tensor: &str, start: usize, values: &[f32]) -> Result<()> {
        let (offset, bytes) = *self.places.get(tensor).expect("announced at creation");
        let data: &[u8] = bytemuck::cast_slice(values);
        assert!(start as u64 * 4 + data.len() as u64 <= bytes, "{tensor} is larger than announced");
        self.put(data, offset + start as u64 * 4)?;
        self.missing -= data.len() as u64;
        Ok(())
    }

    /// Gives the file its name. Every announced element must have been written.
    pub fn finish(self) -> Result<()> {
        assert_eq!(self.missing, 0, "{} lacks values", self.path.display());
        atomic::publish(self.file, &self.path)
    }
}
