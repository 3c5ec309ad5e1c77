use std::fmt;

use crate::{DType, Tensor};

/// How many entries at each end of a long axis are shown.
const EDGE: usize = 3;
/// Tensors of more elements than this are summarised.
const WHOLE: usize = 1000;

/// As numpy prints: nested brackets, columns aligned, the middle of long axes left out, shape, dtype and device behind.
impl fmt::Display for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = format!("{} {} {}", self.shape(), self.dtype(), self.device().name());
        match values(self) {
            Ok(values) => {
                let cells = Cells::new(&values, self.dtype());
                let mut at = 0;
                nested(f, &cells, self.shape(), self.elements() > WHOLE, 0, &mut at)?;
                write!(f, "\n{tail}")
            }
            Err(error) => write!(f, "<{error}>\n{tail}"),
        }
    }
}

fn values(tensor: &Tensor) -> crate::Result<Vec<f64>> {
    crate::no_grad(|| {
        let tensor = tensor.unpack()?;
        match tensor.dtype() {
            DType::I64 => Ok(tensor.to_vec::<i64>()?.into_iter().map(|v| v as f64).collect()),
            DType::U32 => Ok(tensor.to_vec::<u32>()?.into_iter().map(f64::from).collect()),
            DType::U8 => Ok(tensor.to_vec::<u8>()?.into_iter().map(f64::from).collect()),
            DType::F64 => tensor.to_vec::<f64>(),
            // Exact: all others are narrower.
            _ => Ok(tensor.cast(DType::F32)?.to_vec::<f32>()?.into_iter().map(f64::from).collect()),
        }
    })
}

struct Cells<'a> {
    values: &'a [f64],
    precision: usize,
    scientific: bool,
    width: usize,
}

impl<'a> Cells<'a> {
    fn new(values: &'a [f64], dtype: DType) -> Self {
        let finite = || values.iter().map(|v| v.abs()).filter(|v| v.is_finite());
        let largest = finite().fold(0.0, f64::max);
        let smallest = finite().filter(|v| *v > 0.0).fold(f64::INFINITY, f64::min);
        let integers = dtype.is_integer();
        let scientific = !integers && largest > 0.0 && (largest >= 1e6 || smallest < 1e-4 && largest < 1e-2);
        let precision = if integers { 0 } else { 4 };
        let mut cells = Self { values, precision, scientific, width: 0 };
        cells.width = values.iter().map(|v| cells.text(*v).len()).max().unwrap_or(0);
        cells
    }

    fn text(&self, value: f64) -> String {
        if self.scientific && value.is_finite() { format!("{value:.4e}") } else { format!("{value:.*}", self.precision) }
    }
}

/// Prints the axes from `axis` on; `at` walks over the elements, those left out included.
fn nested(f: &mut fmt::Formatter<'_>, cells: &Cells, shape: &[usize], summary: bool, axis: usize, at: &mut usize) -> fmt::Result {
    let Some(&length) = shape.get(axis) else {
        write!(f, "{:>1$}", cells.text(cells.values[*at]), cells.width)?;
        *at += 1;
        return Ok(());
    };
    f.write_str("[")?;
    let inner: usize = shape[axis + 1..].iter().product();
    let last = axis + 1 == shape.len();
    let mut i = 0;
    while i < length {
        if i > 0 {
            let newlines = shape.len() - axis - 1;
            if last { f.write_str(", ")? } else { write!(f, ",{}{:axis$} ", "\n".repeat(newlines), "")? }
        }
        if summary && length > 2 * EDGE && i == EDGE {
            f.write_str("...")?;
            *at += (length - 2 * EDGE) * inner;
            i = length - EDGE;
            continue;
        }
        nested(f, cells, shape, summary, axis + 1, at)?;
        i += 1;
    }
    f.write_str("]")
}
