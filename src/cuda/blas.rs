//! Products by cuBLAS.

use std::ffi::{c_int, c_void};

use cudarc::cublas::result;
use cudarc::cublas::sys::{self, cublasComputeType_t as Compute, cublasOperation_t as Operation, cudaDataType as Type};

use super::array::{Array, Element};
use super::context::Context;
use super::cublas::failed;
use super::driver_context::Stream;
use super::timeline::Amount;
use crate::error::{Error, Kind, Result};

/// How a product is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Precision {
    /// Every product and sum in f32.
    Exact,
    /// f32 operands may lose all but eleven bits on their way into the tensor cores.
    Tensor32,
}

impl Precision {
    fn compute(self) -> Compute {
        match self {
            Self::Exact => Compute::CUBLAS_COMPUTE_32F,
            Self::Tensor32 => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
        }
    }
}

fn size(value: usize) -> Result<c_int> {
    c_int::try_from(value).map_err(|_| Error::new(Kind::Unsupported, format!("cuBLAS: {value} is too large a size")))
}

fn data_type(element: Element) -> Type {
    match element {
        Element::F32 => Type::CUDA_R_32F,
        Element::Bf16 => Type::CUDA_R_16BF,
        Element::U8 => Type::CUDA_R_8U,
    }
}

/// y [rows, out] = x [rows, input] · w, where `w` is [out, input], or [input, out] if `input_first`. `x` and `w` are of one
/// type, `y` is f32.
pub fn product(y: &Array, x: &Array, w: &Array, input_first: bool, precision: Precision) -> Result<()> {
    let (rows, input) = x.dims2();
    let out = y.dims2().1;
    if rows == 0 {
        return Ok(());
    }
    // cuBLAS counts along columns: what it computes is the transpose, y^T = w^T x^T.
    let (turn, w_stride) = match input_first {
        true => (Operation::CUBLAS_OP_N, out),
        false => (Operation::CUBLAS_OP_T, input),
    };
    let (one, zero) = (1f32, 0f32);
    let context = x.context();
    context.enter()?;
    let blas = context.blas();
    let operations = 2.0 * (rows * input) as f64 * out as f64;
    let name = if x.element() == Element::Bf16 { "product in bf16" } else { "product in f32" };
    context.timed(Stream::Compute, name, Amount::Operations(operations), || {
        // SAFETY: the sizes are those of the arrays, all on the GPU of the handle; its stream orders the work.
        let done = unsafe {
            result::gemm_ex(
                blas.0,
                turn,
                Operation::CUBLAS_OP_N,
                size(out)?,
                size(rows)?,
                size(input)?,
                std::ptr::from_ref(&one).cast(),
                w.address() as *const c_void,
                data_type(w.element()),
                size(w_stride)?,
                x.address() as *const c_void,
                data_type(x.element()),
                size(input)?,
                std::ptr::from_ref(&zero).cast(),
                y.address() as *mut c_void,
                Type::CUDA_R_32F,
                size(out)?,
                precision.compute(),
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(|error| failed("a product", error))
    })
}

/// Addresses of a batch of matrices of f32 on the GPU, and the distance of their rows.
#[derive(Clone, Copy)]
pub struct Batch {
    pub list: u64,
    pub stride: usize,
}

/// Sizes of each product of a batch.
#[derive(Clone, Copy)]
pub struct Sizes {
    pub rows: usize,
    pub input: usize,
    pub out: usize,
    pub count: usize,
}

/// y = x · w for each of a batch; `w` is [out, input], or [input, out] if `input_first`.
pub fn products(
    context: &Context,
    (y, x, w): (Batch, Batch, Batch),
    sizes: Sizes,
    input_first: bool,
    precision: Precision,
) -> Result<()> {
    let turn = if input_first { Operation::CUBLAS_OP_N } else { Operation::CUBLAS_OP_T };
    let (one, zero) = (1f32, 0f32);
    context.enter()?;
    let blas = context.blas();
    let operations = 2.0 * (sizes.count * sizes.rows * sizes.input) as f64 * sizes.out as f64;
    context.timed(Stream::Compute, "batch of products", Amount::Operations(operations), || {
        // SAFETY: the caller's lists hold `count` addresses each, of matrices of these sizes.
        let status = unsafe {
            sys::cublasGemmBatchedEx(
                blas.0,
                turn,
                Operation::CUBLAS_OP_N,
                size(sizes.out)?,
                size(sizes.rows)?,
                size(sizes.input)?,
                std::ptr::from_ref(&one).cast(),
                w.list as *const *const c_void,
                Type::CUDA_R_32F,
                size(w.stride)?,
                x.list as *const *const c_void,
                Type::CUDA_R_32F,
                size(x.stride)?,
                std::ptr::from_ref(&zero).cast(),
                y.list as *const *mut c_void,
                Type::CUDA_R_32F,
                size(y.stride)?,
                size(sizes.count)?,
                precision.compute(),
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        status.result().map_err(|error| failed("a batch of products", error))
    })
}
