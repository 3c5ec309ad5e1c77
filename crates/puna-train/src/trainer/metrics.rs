//! `metrics.jsonl`: a JSON object a step.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use puna_llama::weights::write::atomically;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Rewards;
use crate::error::{Error, Result};

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, from 1.
    pub step: u64,
    /// The mean loss of its batches before it, in nats a token.
    pub loss: f64,
    /// The learning rate.
    pub lr: f64,
    /// The norm of the gradient before clipping.
    pub grad_norm: f64,
    /// How many tokens were read.
    pub tokens: u64,
    /// How many a second.
    pub tokens_per_second: f64,
    /// Since the run began.
    pub seconds: f64,
    /// Of preferences, what they came to before the step; nothing of other data.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub rewards: Option<Rewards>,
}

pub(super) struct Metrics {
    path: PathBuf,
    file: File,
}

impl Metrics {
    /// Opens a run's file; what was written of steps behind `step`, by a run that was interrupted, goes.
    pub(super) fn open(folder: &Path, step: u64) -> Result<Self> {
        fs::create_dir_all(folder).map_err(|e| Error::io(folder, "create", e))?;
        let path = folder.join("metrics.jsonl");
        if path.exists() {
            let lines = BufReader::new(File::open(&path).map_err(|e| Error::io(&path, "open", e))?).lines();
            let mut kept = String::new();
            for line in lines {
                let line = line.map_err(|e| Error::io(&path, "read", e))?;
                // A line that was cut short by a crash is none.
                let number = serde_json::from_str::<Value>(&line).ok().and_then(|value| value["step"].as_u64());
                if number.is_some_and(|number| number <= step) {
                    kept.push_str(&line);
                    kept.push('\n');
                }
            }
            let failed =
                |e| puna_llama::Error::new(puna_llama::Kind::Io, path.display().to_string(), format!("cannot write it: {e}"));
            atomically(&path, |to| to.write_all(kept.as_bytes()).map_err(failed))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(|e| Error::io(&path, "open", e))?;
        Ok(Self { path, file })
    }

    pub(super) fn write(&mut self, record: &Record) -> Result<()> {
        self.line(&serde_json::to_value(record).expect("numbers under names"))
    }

    pub(super) fn evaluation(&mut self, step: u64, loss: f64) -> Result<()> {
        self.line(&json!({"step": step, "held_out": loss}))
    }

    fn line(&mut self, value: &Value) -> Result<()> {
        writeln!(self.file, "{value}").map_err(|e| Error::io(&self.path, "write", e))
    }
}
