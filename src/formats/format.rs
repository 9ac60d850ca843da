//! What a way of storing weights is: which tensors, and how their bytes become values.

use half::bf16;

/// A way of storing the weight [.., out, in] of a projection in several tensors of bytes.
pub struct Format {
    /// As `quant_method` in config.json has it.
    pub name: &'static str,
    /// The tensors that hold a weight of this shape together.
    pub pieces: fn(shape: &[usize]) -> Vec<Piece>,
    /// The values of one matrix [out, in] from the bytes of its pieces, in their order. Every value is exact.
    pub decode: fn(pieces: &[Vec<u8>]) -> Vec<bf16>,
    /// What does the same on a GPU.
    pub kernel: Kernel,
}

/// Kernels that unpack.
#[derive(Clone, Copy)]
pub enum Kernel {
    Mxfp4,
}

impl std::fmt::Debug for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Format {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// One of the tensors that hold a weight together.
pub struct Piece {
    /// Behind the name of the weight.
    pub ending: &'static str,
    pub shape: Vec<usize>,
    /// How many weights an element stands for.
    pub weights_per_element: u64,
}
