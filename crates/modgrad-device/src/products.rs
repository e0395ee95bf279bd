//! Matrix products by cuBLAS or hipBLAS, whose functions for them are the same.

use std::ffi::c_void;

use modgrad_graph::Result;

use crate::driver::{Float, Product};
use crate::library::{Library, failed};

type Gemm = unsafe extern "C" fn(
    *mut c_void,
    i32, // operation on A
    i32, // and on B
    i32,
    i32,
    i32,
    *const f32,
    u64,
    i32,
    i32,
    i64,
    u64,
    i32,
    i32,
    i64,
    *const f32,
    u64,
    i32,
    i32,
    i64,
    i32, // batch
    i32, // type of the sums
    i32, // algorithm
) -> i32;

/// The library with its numbers for things.
pub(crate) struct Products {
    handle: *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void) -> i32,
    gemm: Gemm,
    name: &'static str,
    pub(crate) version: String,
    plain: i32,
    transposed: i32,
    f32: i32,
    bf16: i32,
    sums: i32,
    algorithm: i32,
}

// SAFETY: the handle is used by one thread at a time: `Vendor` holds a lock around it.
unsafe impl Send for Products {}

impl Products {
    /// cuBLAS on a stream.
    pub(crate) fn cuda(library: &Library, stream: *mut c_void) -> Result<Products> {
        let handle = handle(library, "cuBLAS", "cublasCreate_v2", "cublasSetStream_v2", stream)?;
        let mode: unsafe extern "C" fn(*mut c_void, i32) -> i32 =
            library.function("cublasSetMathMode")?;
        // CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION: partial sums of bf16 stay f32.
        // SAFETY: the handle is a new one.
        unsafe { mode(handle, 16) };
        let version = version(library, "cublasGetVersion_v2", handle)?;
        Ok(Products {
            handle,
            destroy: library.function("cublasDestroy_v2")?,
            gemm: library.function("cublasGemmStridedBatchedEx")?,
            name: "cuBLAS",
            version: format!("{}.{}", version / 10_000, version / 100 % 100),
            plain: 0,      // CUBLAS_OP_N
            transposed: 1, // CUBLAS_OP_T
            f32: 0,        // CUDA_R_32F
            bf16: 14,      // CUDA_R_16BF
            sums: 68,      // CUBLAS_COMPUTE_32F
            algorithm: -1, // CUBLAS_GEMM_DEFAULT
        })
    }

    /// hipBLAS on a stream. Version 2 has types as HIP numbers them under a name ending in
    /// `_v2`, version 3 under the name that had numbers of its own before. Older versions
    /// don't tell which they are, so that is seen from what they have.
    pub(crate) fn hip(library: &Library, stream: *mut c_void) -> Result<Products> {
        let handle = handle(library, "hipBLAS", "hipblasCreate", "hipblasSetStream", stream)?;
        let mode: unsafe extern "C" fn(*mut c_void, i32) -> i32 =
            library.function("hipblasSetAtomicsMode")?;
        // HIPBLAS_ATOMICS_NOT_ALLOWED: sums have one order.
        // SAFETY: the handle is a new one.
        unsafe { mode(handle, 0) };
        let (symbol, major) = if library.has("hipblasGemmStridedBatchedEx_v2") {
            ("hipblasGemmStridedBatchedEx_v2", 2)
        } else if library.has("hipblasGemmStridedBatchedEx_64") {
            ("hipblasGemmStridedBatchedEx", 3)
        } else {
            ("hipblasGemmStridedBatchedEx", 1)
        };
        let version = if library.has("hipblasGetVersion") {
            let number = version(library, "hipblasGetVersion", handle)?;
            format!("{}.{}", number / 10_000, number / 100 % 100)
        } else {
            format!("{major}")
        };
        Ok(Products {
            handle,
            destroy: library.function("hipblasDestroy")?,
            gemm: library.function(symbol)?,
            name: "hipBLAS",
            version,
            plain: 111,      // HIPBLAS_OP_N
            transposed: 112, // HIPBLAS_OP_T
            // HIP_R_32F, HIP_R_16BF and HIPBLAS_COMPUTE_32F, or HIPBLAS_R_32F, HIPBLAS_R_16B.
            f32: if major > 1 { 0 } else { 151 },
            bf16: if major > 1 { 14 } else { 168 },
            sums: if major > 1 { 2 } else { 151 },
            algorithm: 160, // HIPBLAS_GEMM_DEFAULT
        })
    }

    /// Gives the handle back; nothing may be run after this.
    pub(crate) fn close(&mut self) {
        // SAFETY: the handle is alive until now.
        unsafe { (self.destroy)(self.handle) };
    }

    /// These libraries are column-major: a row-major C = A·B is their Cᵀ = Bᵀ·Aᵀ, where a
    /// row-major matrix is its own transpose.
    pub(crate) fn run(&self, product: &Product) -> Result<()> {
        let Product { m, n, k, batch, transpose_a, transpose_b, .. } = *product;
        let size = |value: usize| {
            i32::try_from(value).map_err(|_| {
                failed(format!("{}: a side of {value} is more than 2³¹ − 1", self.name))
            })
        };
        let operation = |transpose| if transpose { self.transposed } else { self.plain };
        let float = |float| if float == Float::F32 { self.f32 } else { self.bf16 };
        let beta = if product.add { 1.0f32 } else { 0.0 };
        // SAFETY: `Device` has checked that the operands lie within buffers; the scalars are
        // read before the call returns.
        let status = unsafe {
            (self.gemm)(
                self.handle,
                operation(transpose_b),
                operation(transpose_a),
                size(n)?,
                size(m)?,
                size(k)?,
                &1.0,
                product.b,
                float(product.factors),
                size(if transpose_b { k } else { n })?,
                product.stride_b as i64,
                product.a,
                float(product.factors),
                size(if transpose_a { m } else { k })?,
                product.stride_a as i64,
                &beta,
                product.c,
                float(product.result),
                size(n)?,
                product.stride_c as i64,
                size(batch)?,
                self.sums,
                self.algorithm,
            )
        };
        if status != 0 {
            return Err(failed(format!(
                "{} {} refuses a product of {m}×{k} and {k}×{n} ({:?} to {:?}): status {status}",
                self.name, self.version, product.factors, product.result
            )));
        }
        Ok(())
    }
}

fn handle(
    library: &Library,
    name: &str,
    create: &str,
    set_stream: &str,
    stream: *mut c_void,
) -> Result<*mut c_void> {
    let create: unsafe extern "C" fn(*mut *mut c_void) -> i32 = library.function(create)?;
    let set_stream: unsafe extern "C" fn(*mut c_void, *mut c_void) -> i32 =
        library.function(set_stream)?;
    let mut handle = std::ptr::null_mut();
    // SAFETY: it writes one handle.
    let status = unsafe { create(&mut handle) };
    if status != 0 {
        return Err(failed(format!("{name} ({}) does not start: status {status}", library.name())));
    }
    // SAFETY: both are alive.
    unsafe { set_stream(handle, stream) };
    Ok(handle)
}

fn version(library: &Library, symbol: &str, handle: *mut c_void) -> Result<i32> {
    let get: unsafe extern "C" fn(*mut c_void, *mut i32) -> i32 = library.function(symbol)?;
    let mut version = 0;
    // SAFETY: it writes one int.
    unsafe { get(handle, &mut version) };
    Ok(version)
}
