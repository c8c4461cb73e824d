//! What an operation asks of a device, as data: launches of kernels over buffers.

use candle_core::{DType, Shape};

use crate::error::{Error, Result};

/// A file of kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in `kernels/`, without the ending.
    pub name: &'static str,
    #[cfg(feature = "cuda")]
    pub(crate) ptx: &'static str,
}

/// The [`Source`] of a name.
macro_rules! source {
    ($name:literal) => {
        $crate::compute::device::Source {
            name: $name,
            #[cfg(feature = "cuda")]
            ptx: include_str!(concat!(env!("OUT_DIR"), "/", $name, ".ptx")),
        }
    };
}
pub(crate) use source;

/// Memory that kernels read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buffer {
    /// One of the tensors that the operation is called with; its outputs come last.
    Operand(usize),
    /// Memory that is needed only while the program runs.
    Scratch(usize),
}

/// An argument of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Argument {
    /// The address of a buffer, so many bytes from its start.
    Address(Buffer, usize),
    /// An unsigned integer.
    U32(u32),
    /// A float32 number.
    F32(f32),
    /// A float64 number.
    F64(f64),
    /// Float64 numbers that are passed by value.
    Eight([f64; 8]),
}

impl From<Buffer> for Argument {
    fn from(buffer: Buffer) -> Self {
        Self::Address(buffer, 0)
    }
}

impl From<u32> for Argument {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl From<f64> for Argument {
    fn from(number: f64) -> Self {
        Self::F64(number)
    }
}

/// One launch of a kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Name of the kernel in its source.
    pub kernel: &'static str,
    /// Blocks along both axes.
    pub grid: [u32; 2],
    /// Threads of a block, a multiple of 32.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// In the order of the kernel's own.
    pub arguments: Vec<Argument>,
}

/// Launches, one after another, and the memory between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Program {
    /// Where the kernels are.
    pub source: Source,
    /// Element types of the operands that are read, the first ones.
    pub operands: Vec<DType>,
    /// Element type and shape of the operand that is written, the last one.
    pub output: (DType, Shape),
    /// Bytes of every scratch buffer.
    pub scratch: Vec<usize>,
    /// In order; none has an empty grid.
    pub launches: Vec<Launch>,
}

/// Most blocks along the second axis of a grid.
const MOST_ROWS_OF_BLOCKS: u32 = 65_535;

impl Program {
    /// A program that does nothing yet.
    pub(crate) fn new(
        source: Source,
        operands: impl Into<Vec<DType>>,
        output: (DType, impl Into<Shape>),
    ) -> Self {
        Self {
            source,
            operands: operands.into(),
            output: (output.0, output.1.into()),
            scratch: Vec::new(),
            launches: Vec::new(),
        }
    }

    /// Adds a scratch buffer.
    pub(crate) fn scratch(&mut self, bytes: usize) -> Buffer {
        self.scratch.push(bytes);
        Buffer::Scratch(self.scratch.len() - 1)
    }

    /// Adds a launch, unless its grid is empty.
    ///
    /// Errors: [`Error::Invalid`] for a grid that no device takes.
    pub(crate) fn launch(&mut self, launch: Launch) -> Result<()> {
        if launch.grid[1] > MOST_ROWS_OF_BLOCKS {
            let bound = format!("a device takes at most {MOST_ROWS_OF_BLOCKS}");
            return Err(Error::invalid("rows of blocks", launch.grid[1], bound));
        }
        if !launch.grid.contains(&0) {
            self.launches.push(launch);
        }
        Ok(())
    }
}

/// A size as kernels count.
///
/// Errors: [`Error::Invalid`] for one beyond 32 bits.
pub(crate) fn size(what: &str, size: usize) -> Result<u32> {
    u32::try_from(size)
        .map_err(|_| Error::invalid(what, size, format!("kernels count to {}", u32::MAX)))
}
