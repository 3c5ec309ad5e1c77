//! Rotary tables on a device, grown as positions ask for them.

use std::sync::{Arc, Mutex, PoisonError};

use puna_tensor::{Device, Tensor};

use crate::config::Config;
use crate::error::Result;
use crate::rope;

/// Cosines and sines of one set of frequencies, for positions from 0 on.
#[derive(Debug, Clone)]
pub struct RotaryTable(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    frequencies: rope::Frequencies,
    is_base: bool,
    rows: Mutex<Option<(Tensor, Tensor)>>,
}

impl RotaryTable {
    /// The table of the config's frequencies, for sequences whose prompt is no longer than they were made for.
    pub fn base(config: &Config) -> Self {
        Self::new(rope::frequencies(config, 0), true)
    }

    /// The table for a sequence with a prompt of `length` tokens: dynamic scaling gives long ones frequencies of their own, which
    /// stay for the whole sequence.
    pub fn for_prompt(&self, config: &Config, length: usize) -> Self {
        let frequencies = rope::frequencies(config, length);
        if frequencies == self.0.frequencies { self.clone() } else { Self::new(frequencies, false) }
    }

    fn new(frequencies: rope::Frequencies, is_base: bool) -> Self {
        Self(Arc::new(Shared { frequencies, is_base, rows: Mutex::new(None) }))
    }

    /// Whether these are the config's own frequencies: only then do equal tokens have equal keys.
    pub fn is_base(&self) -> bool {
        self.0.is_base
    }

    /// Whether both are the same table.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Cosines and sines, `[rows, head_dim / 2]` f32, of at least the first `positions` positions.
    pub(crate) fn rows(&self, positions: usize, device: &Device) -> Result<(Tensor, Tensor)> {
        let mut rows = self.0.rows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((cos, sin)) = rows.as_ref().filter(|(cos, _)| cos.dim(0) >= positions && cos.device() == device) {
            return Ok((cos.clone(), sin.clone()));
        }
        let count = positions.next_power_of_two().max(256);
        let half = self.0.frequencies.inv_freq.len();
        let (cos, sin) = self.0.frequencies.table(0..count);
        let cos = Tensor::from_slice(&cos, [count, half], device)?;
        let sin = Tensor::from_slice(&sin, [count, half], device)?;
        *rows = Some((cos.clone(), sin.clone()));
        Ok((cos, sin))
    }
}
