//! What a step that may draw tokens reads: its numbers on the host, and the tensors of them on the device.

use puna_tensor::op::{SampleInputs, SamplingParameters};
use puna_tensor::{Device, Element, Shape, Tensor};

use crate::error::Result;
use crate::model::Llama;
use crate::options::Options;
use crate::step::{Past, Step};

/// A token that the host does not know yet: a step that was enqueued before draws it.
pub(crate) const UNKNOWN: u32 = u32::MAX;

/// The values of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Values<T> {
    values: Vec<T>,
    shape: Shape,
}

impl<T: Copy> Values<T> {
    /// `[n]`.
    pub(crate) fn vector(values: impl IntoIterator<Item = T>) -> Self {
        let values = Vec::from_iter(values);
        Self { shape: values.len().into(), values }
    }

    /// `[rows, columns]`, each row filled up to `columns`, or to the longest where that is more.
    pub(crate) fn matrix<R: AsRef<[T]>>(rows: impl IntoIterator<Item = R>, columns: usize, filler: T) -> Self {
        let rows = Vec::from_iter(rows);
        let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0).max(columns);
        let filled = rows.iter().flat_map(|row| row.as_ref().iter().copied().chain(std::iter::repeat(filler)).take(columns));
        Self { values: filled.collect(), shape: [rows.len(), columns].into() }
    }

    fn tensor(&self, device: &Device) -> Result<Tensor>
    where
        T: Element,
    {
        Ok(Tensor::from_slice(&self.values, self.shape, device)?)
    }
}

/// The numbers of a step, as [`Step`] and [`SampleInputs`] name them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbers {
    /// Those of them that are [`UNKNOWN`] are on the device already.
    pub(crate) ids: Vec<u32>,
    pub(crate) starts: Values<u32>,
    /// The rows of the hidden states whose next tokens are drawn.
    pub(crate) last: Values<u32>,
    pub(crate) generated_from: Values<u32>,
    pub(crate) seeds: Values<u32>,
    pub(crate) bias_ids: Values<u32>,
    pub(crate) history: Values<u32>,
    pub(crate) page_table: Values<u32>,
    pub(crate) positions: Values<u32>,
    pub(crate) slots: Values<u32>,
    pub(crate) lengths: Values<u32>,
    /// The positions that the drawn tokens take.
    pub(crate) places: Values<u32>,
    pub(crate) parameters: Values<f32>,
    pub(crate) bias: Values<f32>,
}

impl Numbers {
    /// Those of one sequence of so many tokens, whatever they are, that has nothing behind it and draws greedily.
    pub(crate) fn of_one(tokens: usize, page_size: usize) -> Self {
        let count = || 0..tokens as u32;
        let number = || Values::vector([tokens as u32]);
        let none = || Values::matrix([&[] as &[u32]], 0, 0);
        let pages = Vec::from_iter(0..tokens.div_ceil(page_size) as u32);
        Self {
            ids: vec![0; tokens],
            starts: Values::vector([0, tokens as u32]),
            last: Values::vector([tokens as u32 - 1]),
            generated_from: number(),
            seeds: Values::matrix([[0, 0]], 2, 0),
            bias_ids: none(),
            history: none(),
            page_table: Values::matrix([pages], 1, 0),
            positions: Values::vector(count()),
            slots: Values::vector(count()),
            lengths: number(),
            places: number(),
            parameters: Values::matrix([Options::default().sampling.row()], SamplingParameters::COLUMNS, 0.0),
            bias: Values::matrix([&[] as &[f32]], 0, 0.0),
        }
    }
}

/// How many fields of u32 there are beside the ids: they share one tensor, so that a step costs one copy to the device.
const FIELDS: usize = 11;
/// Each field begins where a vector load may.
const ALIGNED: usize = 4;

impl Numbers {
    /// Those that change least first: from the first to the last that differs is what a step writes.
    fn fields(&self) -> [&Values<u32>; FIELDS] {
        let Self { starts, last, generated_from, seeds, bias_ids, history, page_table, .. } = self;
        let Self { positions, slots, lengths, places, .. } = self;
        [starts, last, generated_from, seeds, bias_ids, history, page_table, positions, slots, lengths, places]
    }

    fn words(&self) -> Vec<u32> {
        let mut words = Vec::new();
        for field in self.fields() {
            words.extend_from_slice(&field.values);
            words.resize(words.len().next_multiple_of(ALIGNED), 0);
        }
        words
    }
}

/// The tensors of a step's numbers.
#[derive(Debug)]
pub(crate) struct Inputs {
    /// `[tokens]` u32.
    pub(crate) ids: Tensor,
    fields: [Tensor; FIELDS],
    parameters: Tensor,
    bias: Tensor,
    /// All fields of u32, and what they hold.
    words: (Tensor, Vec<u32>),
    numbers: Numbers,
}

impl Inputs {
    pub(crate) fn new(numbers: Numbers, device: &Device) -> Result<Self> {
        let words = numbers.words();
        let all = Tensor::from_slice(&words, words.len(), device)?;
        let (mut fields, mut at) = (Vec::with_capacity(FIELDS), 0);
        for Values { values, shape } in numbers.fields() {
            fields.push(all.slice(0, at, values.len())?.reshape(*shape)?);
            at += values.len().next_multiple_of(ALIGNED);
        }
        Ok(Self {
            ids: Tensor::from_slice(&numbers.ids, numbers.ids.len(), device)?,
            fields: fields.try_into().expect("one of each"),
            parameters: numbers.parameters.tensor(device)?,
            bias: numbers.bias.tensor(device)?,
            words: (all, words),
            numbers,
        })
    }

    /// Has the tensors hold other numbers of the same shapes. Ids that are unknown are left as they are.
    pub(crate) fn write(&mut self, numbers: Numbers) -> Result<()> {
        if !numbers.ids.contains(&UNKNOWN) {
            self.ids.write(0, &numbers.ids)?;
        }
        let (all, old) = &mut self.words;
        let words = numbers.words();
        if let Some(first) = words.iter().zip(&*old).position(|(new, old)| new != old) {
            let last = words.iter().zip(&*old).rposition(|(new, old)| new != old).expect("there is a first");
            all.write(first, &words[first..=last])?;
            *old = words;
        }
        for (tensor, new, old) in
            [(&self.parameters, &numbers.parameters, &self.numbers.parameters), (&self.bias, &numbers.bias, &self.numbers.bias)]
        {
            if new != old {
                tensor.write(0, &new.values)?;
            }
        }
        self.numbers = numbers;
        Ok(())
    }

    /// `[rows]` u32.
    pub(crate) fn last(&self) -> &Tensor {
        &self.fields[1]
    }

    /// The step over these, with a rotary table and the keys and values of each layer.
    pub(crate) fn step(&self, llama: &Llama, (cos, sin): (Tensor, Tensor), pages: Vec<(Tensor, Tensor)>) -> Step {
        let [starts, .., page_table, positions, slots, lengths, _] = self.fields.clone();
        let past = Past::Cache { pages, page_table, lengths, slots };
        let (pairs, activations) = (llama.config.rope_pairs, llama.activations);
        Step { positions, cos, sin, pairs, starts, past, activations, dropout: None, around: None }
    }

    pub(crate) fn sampling(&self) -> SampleInputs<'_> {
        let [_, _, generated_from, seeds, bias_ids, history, .., places] = &self.fields;
        let Self { parameters, bias, .. } = self;
        SampleInputs { parameters, history, generated_from, bias_ids, bias, seeds, positions: places }
    }
}
