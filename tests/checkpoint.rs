//! Safetensors files for tests, read, changed and written as a whole.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

impl Array {
    pub fn new(dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Self {
        Self { dtype, shape: shape.to_vec(), data }
    }

    /// bf16 values, given as bits.
    pub fn bf16(shape: &[usize], bits: impl IntoIterator<Item = u16>) -> Self {
        Self::new(Dtype::BF16, shape, bits.into_iter().flat_map(u16::to_le_bytes).collect())
    }
}

pub type Arrays = BTreeMap<String, Array>;

pub fn read(path: &Path) -> Arrays {
    let data = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&data).unwrap();
    file.iter().map(|(name, v)| (name.to_string(), Array::new(v.dtype(), v.shape(), v.data().to_vec()))).collect()
}

pub fn write(path: &Path, arrays: &Arrays) {
    let views = arrays.iter().map(|(name, a)| (name, TensorView::new(a.dtype, a.shape.clone(), &a.data).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Rewrites a file with some of its tensors changed.
pub fn change(path: &Path, change: impl FnOnce(&mut Arrays)) {
    let mut arrays = read(path);
    change(&mut arrays);
    write(path, &arrays);
}
