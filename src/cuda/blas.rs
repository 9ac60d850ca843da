//! Matrix products by cuBLAS.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use cudarc::cublas::result;
use cudarc::cublas::sys::{self, cublasComputeType_t as Compute, cublasOperation_t as Operation, cudaDataType as Type};

use super::array::{Array, Element};
use super::cublas::failed;
use super::driver_context::Stream;
use super::timeline::Amount;
use crate::error::{Error, Kind, Result, fault};

/// The precision of a matrix product.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Precision {
    /// All products and sums in f32.
    F32,
    /// The tensor cores may round f32 operands to TF32, which keeps eleven significant bits.
    Tf32,
}

impl Precision {
    fn compute(self) -> Compute {
        match self {
            Self::F32 => Compute::CUBLAS_COMPUTE_32F,
            Self::Tf32 => Compute::CUBLAS_COMPUTE_32F_FAST_TF32,
        }
    }
}

fn size(value: usize) -> Result<c_int> {
    c_int::try_from(value).map_err(|_| Error::new(Kind::Unsupported, format!("cuBLAS: {value} is too large a size")))
}

fn data_type(element: Element) -> Result<Type> {
    match element {
        Element::F32 => Ok(Type::CUDA_R_32F),
        Element::Bf16 => Ok(Type::CUDA_R_16BF),
        other => fault!("a product of {other:?}"),
    }
}

/// y [rows, out] = x [rows, input] · w, where `w` is [out, input], or [input, out] if
/// `input_first`. `x` and `w` have the same element type, and `y` is f32.
///
/// # Errors
/// `internal` if the arrays do not fit each other, `unsupported` if a size exceeds cuBLAS's
/// integers, and the errors of cuBLAS.
pub fn gemm(y: &Array, x: &Array, w: &Array, input_first: bool, precision: Precision) -> Result<()> {
    let (rows, input) = x.dims2();
    let out = y.dims2().1;
    if rows == 0 {
        return Ok(());
    }
    let types = y.element() == Element::F32 && x.element() == w.element();
    let of_one_gpu = [y, w].iter().all(|other| Arc::ptr_eq(other.context(), x.context()));
    let in_order = [y, x, w].iter().all(|array| array.stream() == Stream::Compute);
    if !types || !of_one_gpu || !in_order || y.len() < rows * out || w.len() < input * out {
        fault!("a product of {x:?} and {w:?} to {y:?}");
    }
    // cuBLAS is column-major, so it computes the transpose, y^T = w^T x^T.
    let (turn, w_stride) = match input_first {
        true => (Operation::CUBLAS_OP_N, out),
        false => (Operation::CUBLAS_OP_T, input),
    };
    let (one, zero) = (1f32, 0f32);
    let context = x.context();
    let current = context.enter()?;
    let blas = context.blas();
    let operations = 2.0 * (rows * input) as f64 * out as f64;
    let name = if x.element() == Element::Bf16 { "product in bf16" } else { "product in f32" };
    context.timed(&current, Stream::Compute, name, Amount::Operations(operations), || {
        // SAFETY: the arrays are on the GPU of this handle and its stream, and have at least as
        // many elements as the sizes say. `one` and `zero` outlive the call, which reads them.
        let done = unsafe {
            result::gemm_ex(
                blas.0,
                turn,
                Operation::CUBLAS_OP_N,
                size(out)?,
                size(rows)?,
                size(input)?,
                std::ptr::from_ref(&one).cast(),
                w.address()? as *const c_void,
                data_type(w.element())?,
                size(w_stride)?,
                x.address()? as *const c_void,
                data_type(x.element())?,
                size(input)?,
                std::ptr::from_ref(&zero).cast(),
                y.address()? as *mut c_void,
                Type::CUDA_R_32F,
                size(out)?,
                precision.compute(),
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        done.map_err(|error| failed("a product", error))
    })
}

/// A list, in GPU memory, of the addresses of a batch of f32 matrices, and the distance between
/// their rows in elements.
#[derive(Clone, Copy)]
pub(super) struct Batch {
    pub(super) list: u64,
    pub(super) stride: usize,
}

/// y = x · w for each of `count` matrices. `w` is [out, input], or [input, out] if `input_first`.
///
/// # Safety
/// When the compute stream of the GPU of `on` reaches this call, each list holds `count` addresses
/// of memory of that GPU, which the compute stream uses and frees. The matrices of `y` have `rows`
/// rows of `out` numbers, those of `x` have `rows` rows of `input` numbers, and those of `w` have
/// the numbers of an `input` by `out` matrix.
pub(super) unsafe fn gemm_batched(
    on: &Array,
    [y, x, w]: [Batch; 3],
    [rows, input, out]: [usize; 3],
    count: usize,
    input_first: bool,
    precision: Precision,
) -> Result<()> {
    let turn = if input_first { Operation::CUBLAS_OP_N } else { Operation::CUBLAS_OP_T };
    let (one, zero) = (1f32, 0f32);
    let context = on.context();
    let current = context.enter()?;
    let blas = context.blas();
    let operations = 2.0 * (count * rows * input) as f64 * out as f64;
    context.timed(&current, Stream::Compute, "batch of products", Amount::Operations(operations), || {
        // SAFETY: the caller promises the contents of the lists, on the GPU of this handle. `one`
        // and `zero` outlive the call.
        let status = unsafe {
            sys::cublasGemmBatchedEx(
                blas.0,
                turn,
                Operation::CUBLAS_OP_N,
                size(out)?,
                size(rows)?,
                size(input)?,
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
                size(count)?,
                precision.compute(),
                sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        status.result().map_err(|error| failed("a batch of products", error))
    })
}
