//! Cross entropy, of logits that are there and of logits that are formed a chunk of rows at a time.

use puna_tensor::op::{Activations, CrossEntropyBackward, LinearCrossEntropyBackward};
use puna_tensor::{Op, Result, Tensor};

use super::index::numbers as labels;
use super::softmax::log_sum;
use super::wide::{Source, Wide, in_wide, scratch, with_row};
use crate::backend::Cpu;
use crate::memory::{read, write};

/// How many logits a task takes: an exponential costs about 0.4 ns, so about 10 us.
const TASK: usize = 24 << 10;
/// How many logits are held at a time where they are formed here: 128 MiB of f32. With fewer, the weight, and in the backward pass its
/// gradient, would be read more often than the products take: 256 rows of a vocabulary of 128k share a pass over them.
const CHUNK: usize = 32 << 20;

pub(super) fn cross_entropy(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), forward(outputs, labels(inputs[1]), |rows| rows.add(cpu, inputs[0])))
}

/// What is known of each row after its logits were seen.
struct Rows<W> {
    labels: Vec<u32>,
    lse: Vec<W>,
    /// The loss; 0 where a row does not count.
    losses: Vec<W>,
    seen: usize,
    vocab: usize,
}

impl<W: Wide> Rows<W> {
    /// The next rows' logits.
    fn add(&mut self, cpu: &Cpu, logits: &Tensor) -> Result<()> {
        let (rows, vocab) = (logits.shape().rows(), logits.shape().last());
        self.vocab = vocab;
        let source = Source::new(logits);
        let range = self.seen..self.seen + rows;
        let per_task = (TASK / vocab.max(1)).max(1);
        let labels = &self.labels[range.clone()];
        let (lse, losses) = ((&mut self.lse[range.clone()], per_task), (&mut self.losses[range], per_task));
        cpu.pool.chunks_mut_2(lse, losses, |i, lse, losses| {
            scratch(vocab, |row: &mut [W]| {
                for (r, (lse, loss)) in lse.iter_mut().zip(losses).enumerate() {
                    let r = i * per_task + r;
                    let row = source.row(source.layout().row_offset(r), row);
                    let largest = W::largest(row);
                    *lse = log_sum(row, largest) + largest;
                    *loss = row.get(labels[r] as usize).map_or(W::ZERO, |chosen| *lse - *chosen);
                }
            });
        });
        self.seen += rows;
        Ok(())
    }
}

/// The sum, the count, and the log-sum-exp of each row where `outputs` has room for it.
fn forward<W: Wide>(outputs: &[Tensor], labels: Vec<u32>, fill: impl FnOnce(&mut Rows<W>) -> Result<()>) -> Result<()> {
    let zeros = vec![W::ZERO; labels.len()];
    let mut rows = Rows { labels, lse: zeros.clone(), losses: zeros, seen: 0, vocab: 0 };
    fill(&mut rows)?;
    // In the order of the rows, whoever computed them.
    let mut sum = W::ZERO;
    rows.losses.iter().for_each(|loss| sum += *loss);
    let count = rows.labels.iter().filter(|label| (**label as usize) < rows.vocab).count() as u32;
    write(&outputs[0])?.typed::<W>()[0] = sum;
    write(&outputs[1])?.typed::<u32>()[0] = count;
    if let Some(lse) = outputs.get(2) {
        write(lse)?.typed::<W>()[..rows.lse.len()].copy_from_slice(&rows.lse);
    }
    Ok(())
}

pub(super) fn cross_entropy_backward(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[1].dtype(), backward(cpu, inputs, &outputs[0]))
}

fn backward<W: Wide>(cpu: &Cpu, inputs: &[&Tensor], d: &Tensor) -> Result<()> {
    let [dsum, logits, labels_of, lse] = inputs else { unreachable!("inference has counted them") };
    let (dtype, vocab) = (logits.dtype(), logits.shape().last());
    if d.elements() == 0 {
        return Ok(());
    }
    let (labels, source) = (labels(labels_of), Source::new(logits));
    let mut factor = [W::ZERO];
    W::load(dsum.dtype(), read(dsum).bytes(), dsum.layout().offset(), 1, &mut factor);
    let lse = lse.contiguous()?;
    let (lse_memory, lse_at) = (read(&lse), lse.layout().offset());
    let lse = &lse_memory.typed::<W>()[lse_at..];
    let row_bytes = vocab * dtype.unit_bytes();
    let per_task = (TASK / vocab).max(1);
    let mut d_memory = write(d)?;
    cpu.pool.chunks_mut(&mut d_memory.bytes()[d.byte_range()], per_task * row_bytes, |i, rows| {
        for (r, row) in rows.chunks_exact_mut(row_bytes).enumerate() {
            let r = i * per_task + r;
            with_row(dtype, row, |row: &mut [W]| {
                let label = labels[r] as usize;
                if label >= vocab {
                    return row.fill(W::ZERO);
                }
                source.load(source.layout().row_offset(r), row);
                row.iter_mut().for_each(|x| *x = *x - lse[r]);
                W::exp_all(row);
                row[label] = row[label] - W::ONE;
                W::scale(row, factor[0]);
            });
        }
    });
    Ok(())
}

/// Rows `[rows, last]` in row-major order.
fn flat(x: &Tensor) -> Result<Tensor> {
    x.reshape([x.shape().rows(), x.shape().last()])
}

/// How many rows' logits are formed at a time: as many each time, or one less.
fn chunk_rows(rows: usize, vocab: usize) -> usize {
    let most = (CHUNK / vocab.max(1)).max(1);
    rows.div_ceil(rows.div_ceil(most).max(1)).max(1)
}

pub(super) fn linear_cross_entropy(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    in_wide!(inputs[0].dtype(), linear_forward(cpu, inputs, outputs))
}

fn linear_forward<W: Wide>(cpu: &Cpu, inputs: &[&Tensor], outputs: &[Tensor]) -> Result<()> {
    let (x, weight) = (inputs[0].detach(), inputs[1].detach());
    let x = flat(&x)?;
    let step = chunk_rows(x.dim(0), weight.dim(0));
    forward::<W>(outputs, labels(inputs[2]), |rows| {
        rows.vocab = weight.dim(0);
        for start in (0..x.dim(0)).step_by(step) {
            let x = x.slice(0, start, step.min(x.dim(0) - start))?.cast(W::DTYPE)?;
            rows.add(cpu, &x.linear(&weight, Activations::Exact)?)?;
        }
        Ok(())
    })
}

pub(super) fn linear_cross_entropy_backward(
    cpu: &Cpu,
    op: &LinearCrossEntropyBackward,
    inputs: &[&Tensor],
    outputs: &[Tensor],
) -> Result<()> {
    let [dsum, x, weight, labels, lse] = inputs else { unreachable!("inference has counted them") };
    let [dsum, x, weight, labels, lse] = [dsum, x, weight, labels, lse].map(|tensor| tensor.detach());
    let wide = x.dtype().accumulator();
    let (x, rows) = (flat(&x)?, x.shape().rows());
    let (labels, lse) = (labels.reshape(rows)?, lse.reshape(rows)?);
    let step = chunk_rows(rows, weight.dim(0));
    // Sums in place where the result is wide enough for them.
    let in_place = outputs.get(1).filter(|output| output.dtype() == wide);
    let mut dweight: Option<Tensor> = None;
    let row_bytes = outputs[0].shape().last() * outputs[0].dtype().unit_bytes();
    for start in (0..rows).step_by(step) {
        let part = |tensor: &Tensor| tensor.slice(0, start, step.min(rows - start));
        let x = part(&x)?.cast(wide)?;
        let logits = x.linear(&weight, Activations::Exact)?;
        let d = Op::CrossEntropyBackward(CrossEntropyBackward).apply(&[&dsum, &logits, &part(&labels)?, &part(&lse)?])?.one()?;
        let dx = d.linear_input_grad(&weight)?.cast(outputs[0].dtype())?;
        let range = start * row_bytes..start * row_bytes + dx.byte_range().len();
        write(&outputs[0])?.bytes()[range].copy_from_slice(&read(&dx).bytes()[dx.byte_range()]);
        if op.weight_grad {
            let transposed = d.transpose(0, 1)?;
            match (&dweight, in_place) {
                (Some(sum), _) => in_wide!(wide, add_to(cpu, &transposed.matmul(&x)?, sum))?,
                (None, Some(output)) => {
                    super::matmul::matmul(cpu, &[&transposed, &x], std::slice::from_ref(output))?;
                    dweight = Some(output.clone());
                }
                (None, None) => dweight = Some(transposed.matmul(&x)?),
            }
        }
    }
    if let Some(output) = outputs.get(1).filter(|_| in_place.is_none() || dweight.is_none()) {
        let sum = dweight.map_or_else(|| Tensor::zeros(*output.shape(), wide, output.device()), Ok)?;
        let sum = sum.cast(output.dtype())?;
        write(output)?.bytes()[..sum.byte_range().len()].copy_from_slice(&read(&sum).bytes()[sum.byte_range()]);
    }
    Ok(())
}

/// `sum += x`, both contiguous and of one dtype.
fn add_to<W: Wide>(cpu: &Cpu, x: &Tensor, sum: &Tensor) -> Result<()> {
    let (x_memory, mut memory) = (read(x), write(sum)?);
    let x = &x_memory.typed::<W>()[..x.elements()];
    cpu.pool.chunks_mut(&mut memory.typed::<W>()[..x.len()], TASK, |i, sum| W::add_row(&x[i * TASK..], sum));
    Ok(())
}
