//! Low-rank adapters: LoRA with its rank-stabilised and weight-decomposed kinds, over any base, in PEFT's layout.
//!
//! ```no_run
//! use puna_llama::Llama;
//! use puna_llama::adapter::{Adapter, AdapterConfig};
//!
//! # fn with(mut llama: Llama) -> puna_llama::Result<()> {
//! llama.load_adapter(&Adapter::open("my-adapter")?)?;
//! let former = llama.merge_adapter(None)?; // as fast as the base again
//! llama.unmerge_adapter(former)?; // the base and the adapter, to the bit
//! llama.remove_adapter();
//!
//! let config = AdapterConfig { rank: 8, ..AdapterConfig::default() };
//! llama.add_adapter(&config, 0)?; // to be trained
//! llama.save_adapter("another", &config)?;
//! # Ok(())
//! # }
//! ```

mod attach;
mod config;
mod file;
mod lora;
mod targets;

pub use attach::Unmerged;
pub use config::AdapterConfig;
pub use file::Adapter;
pub use lora::{Lora, Magnitude, Reading};
pub use targets::Targets;
