use serde::{Deserialize, Serialize};

use super::permutation::Permutation;
use crate::error::{Error, Kind, Result};

/// Where in its data a training stands: what a checkpoint keeps of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The seed of the order.
    pub seed: u64,
    /// How many rows the data has.
    pub rows: u64,
    /// How many times all rows have been given.
    pub epoch: u64,
    /// How many rows of this epoch have been given, to all workers together.
    pub index: u64,
}

/// Numbers of rows in a shuffled order, an epoch after the other without end, divided among workers.
///
/// The rows of all epochs form one sequence, each epoch in an order of its own ([`Permutation`] of the seed and the epoch). A step
/// takes the next `batch * world` rows of it, whether or not an epoch ends among them, so that all batches are equally large and
/// every epoch gives every row once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampler {
    rows: u64,
    seed: u64,
    batch: u64,
    rank: u64,
    world: u64,
    epoch: u64,
    index: u64,
}

impl Sampler {
    /// All of `rows` rows, `batch` at a time. Errors: no rows; no rows a batch.
    pub fn new(rows: u64, seed: u64, batch: usize) -> Result<Self> {
        if rows == 0 {
            return Err(Error::new(Kind::Empty, "sampler", "no rows; one at least can be drawn from"));
        }
        if batch == 0 {
            return Err(Error::argument("batch", "no rows a batch; one at least"));
        }
        Ok(Self { rows, seed, batch: batch as u64, rank: 0, world: 1, epoch: 0, index: 0 })
    }

    /// The part of worker `rank` of `world`: of each step's rows every `world`-th, from the `rank`-th on.
    ///
    /// Errors: a rank that is not below the world.
    pub fn shard(self, rank: usize, world: usize) -> Result<Self> {
        if rank >= world {
            return Err(Error::argument("rank", format!("{rank} of a world of {world}; ranks are below it")));
        }
        Ok(Self { rank: rank as u64, world: world as u64, ..self })
    }

    /// Goes on where another stood: with the same data and seed, the rows that it would have given next come next, whatever the size
    /// of its batches and the number of workers.
    ///
    /// Errors: a position in other data or another order.
    pub fn resume(self, position: Position) -> Result<Self> {
        let Position { seed, rows, epoch, index } = position;
        if rows != self.rows || seed != self.seed {
            let message = format!(
                "the position is in {rows} rows in the order of seed {seed}, the data has {} in that of seed {}; both have to be the same",
                self.rows, self.seed
            );
            return Err(Error::new(Kind::Checkpoint, "data", message));
        }
        if index >= rows {
            return Err(Error::new(Kind::Checkpoint, "data", format!("the position is at row {index} of {rows}")));
        }
        Ok(Self { epoch, index, ..self })
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        Position { seed: self.seed, rows: self.rows, epoch: self.epoch, index: self.index }
    }

    /// How many batches an epoch has, rounded up.
    pub fn batches_per_epoch(&self) -> u64 {
        self.rows.div_ceil(self.batch.saturating_mul(self.world))
    }

    /// The rows of this worker's next batch.
    pub fn next_batch(&mut self) -> Vec<u64> {
        let mut order = Permutation::new(self.rows, self.seed, self.epoch);
        let mut batch = Vec::with_capacity(self.batch as usize);
        for step in 0..self.batch * self.world {
            if step % self.world == self.rank {
                batch.push(order.apply(self.index));
            }
            self.index += 1;
            if self.index == self.rows {
                (self.epoch, self.index) = (self.epoch + 1, 0);
                order = Permutation::new(self.rows, self.seed, self.epoch);
            }
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(sampler: &mut Sampler, batches: usize) -> Vec<u64> {
        (0..batches).flat_map(|_| sampler.next_batch()).collect()
    }

    proptest! {
        #[test]
        fn every_epoch_gives_every_row_once(rows in 1u64..40, batch in 1usize..9, seed: u64) {
            let mut sampler = Sampler::new(rows, seed, batch).unwrap();
            let all = self::rows(&mut sampler, 4 * rows as usize);
            for epoch in all.chunks_exact(rows as usize) {
                let mut epoch = epoch.to_vec();
                epoch.sort();
                prop_assert_eq!(epoch, (0..rows).collect::<Vec<_>>());
            }
        }

        #[test]
        fn workers_together_give_what_one_would(rows in 1u64..40, batch in 1usize..5, world in 1usize..5, seed: u64) {
            let mut one = Sampler::new(rows, seed, batch * world).unwrap();
            let mut workers: Vec<Sampler> =
                (0..world).map(|rank| Sampler::new(rows, seed, batch).unwrap().shard(rank, world).unwrap()).collect();
            for _ in 0..20 {
                let parts: Vec<Vec<u64>> = workers.iter_mut().map(Sampler::next_batch).collect();
                let together: Vec<u64> = (0..batch * world).map(|at| parts[at % world][at / world]).collect();
                prop_assert_eq!(together, one.next_batch());
                prop_assert!(workers.iter().all(|worker| worker.position() == one.position()));
            }
        }

        #[test]
        fn a_saved_position_goes_on_exactly(rows in 1u64..40, batch in 1usize..9, other in 1usize..9, before in 0usize..30, seed: u64) {
            let mut sampler = Sampler::new(rows, seed, batch).unwrap();
            self::rows(&mut sampler, before);
            let saved = serde_json::to_string(&sampler.position()).unwrap();
            let position: Position = serde_json::from_str(&saved).unwrap();
            let mut resumed = Sampler::new(rows, seed, other).unwrap().resume(position).unwrap();
            prop_assert_eq!(self::rows(&mut sampler, other), self::rows(&mut resumed, batch));
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let error = |result: Result<Sampler>| result.unwrap_err().to_string();
        assert_eq!(error(Sampler::new(0, 0, 1)), "sampler: no rows; one at least can be drawn from");
        assert_eq!(error(Sampler::new(1, 0, 0)), "batch: no rows a batch; one at least");
        let sampler = Sampler::new(5, 7, 2).unwrap();
        assert_eq!(error(sampler.shard(2, 2)), "rank: 2 of a world of 2; ranks are below it");
        let position = sampler.position();
        for wrong in [Position { rows: 6, ..position }, Position { seed: 8, ..position }, Position { index: 5, ..position }] {
            assert_eq!(sampler.resume(wrong).unwrap_err().kind(), Kind::Checkpoint);
        }
    }
}
