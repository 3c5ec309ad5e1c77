//! What the example programs have in common: where a model comes from, and how errors are told.
#![allow(dead_code, unreachable_pub)] // Each example uses its part.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};
use puna::llama::{Checkpoint, Engine, Llama, LoadOptions, Loader};
use puna::prelude::*;

/// What a program ends with.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Which model, and how it is loaded.
#[derive(clap::Args)]
pub struct ModelArguments {
    /// A folder, a file (GGUF, safetensors), or `org/name` from the Hub's cache; by default the small story teller that puna carries.
    #[arg(long)]
    pub model: Option<String>,
    /// A tokenizer file, in place of the model's own.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// The folder of an adapter, as PEFT writes it, on top of the model.
    #[arg(long)]
    pub adapter: Option<PathBuf>,
    /// Decodes or converts every weight to this dtype, and computes in it; by default weights stay as stored.
    #[arg(long)]
    pub dtype: Option<DType>,
    /// The dtype between operations, where --dtype does not say.
    #[arg(long)]
    pub activations: Option<DType>,
    #[command(flatten)]
    pub device: DeviceArguments,
}

/// Where it runs.
#[derive(clap::Args)]
pub struct DeviceArguments {
    /// auto, cpu, cuda:0, wgpu.
    #[arg(long, default_value = "auto")]
    pub device: String,
    /// How many threads compute; results do not depend on it.
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
}

impl DeviceArguments {
    /// The device.
    pub fn device(&self) -> Result<Device> {
        Ok(puna::device_with_threads(&self.device, self.threads)?)
    }
}

impl ModelArguments {
    /// Loads the model with its tokenizer, with a bar on a terminal.
    pub fn load(&self) -> Result<Model> {
        let checkpoint = self.checkpoint()?;
        self.with_loader(|loader, device| Ok(loader.model(&checkpoint, device)?))
    }

    /// Loads the network alone.
    pub fn load_engine(&self) -> Result<Engine> {
        self.load_engine_with(|loader| loader)
    }

    /// As [`load_engine`](Self::load_engine), with more settings.
    pub fn load_engine_with(&self, more: impl FnOnce(Loader<'_>) -> Loader<'_>) -> Result<Engine> {
        let checkpoint = self.checkpoint()?;
        self.with_loader(|loader, device| Ok(more(loader).engine(&checkpoint, device)?))
    }

    /// What the model is called.
    pub fn name(&self) -> &str {
        self.model.as_deref().unwrap_or("puna-stories")
    }

    /// Finds the model, and downloads it where this build can and the Hub's cache lacks it.
    fn checkpoint(&self) -> Result<Checkpoint> {
        open(self.model.as_deref())
    }

    fn with_loader<T>(&self, load: impl FnOnce(Loader<'_>, &Device) -> Result<T>) -> Result<T> {
        let device = self.device.device()?;
        with_bar(|progress| self.load_with(Model::loader().progress(progress), &device, load))
    }

    fn load_with<T>(
        &self,
        mut loader: Loader<'_>,
        device: &Device,
        load: impl FnOnce(Loader<'_>, &Device) -> Result<T>,
    ) -> Result<T> {
        if let Some(path) = &self.tokenizer {
            loader = loader.tokenizer(path);
        }
        if let Some(folder) = &self.adapter {
            loader = loader.adapter(folder);
        }
        if let Some(dtype) = self.dtype {
            loader = loader.dtype(dtype);
        }
        if let Some(dtype) = self.activations {
            loader = loader.activations(dtype);
        }
        load(loader, device)
    }
}

/// Loads something while a bar shows how far that is.
fn with_bar<T>(load: impl FnOnce(&mut dyn FnMut(puna::llama::Progress<'_>)) -> Result<T>) -> Result<T> {
    let bar = bar("loading");
    let loaded = load(&mut |progress| {
        bar.set_length(progress.total as u64);
        bar.set_position(progress.done as u64);
    });
    bar.finish_and_clear();
    loaded
}

/// A checkpoint's network alone, for training: `pack` where its weights stay as they are.
pub fn load_network(checkpoint: &Checkpoint, dtype: Option<DType>, pack: bool, device: &Device) -> Result<Llama> {
    with_bar(|progress| {
        let options = LoadOptions { dtype, activations: None, pack, progress };
        Ok(Llama::load(checkpoint, device, options)?)
    })
}

/// The checkpoint of this name, downloaded where this build can and the Hub's cache lacks it; without a name, the one that puna carries.
pub fn open(model: Option<&str>) -> Result<Checkpoint> {
    let Some(model) = model else {
        return Ok(Checkpoint::from_gguf("puna-stories", puna_stories::MODEL.to_vec())?);
    };
    let bar = ProgressBar::new(0).with_style(download_style());
    let path = puna::llama::hub::fetch(model, &mut |progress| {
        bar.set_message(format!("{} ({} of {})", progress.file, progress.index + 1, progress.count));
        bar.set_length(progress.total.unwrap_or(progress.done));
        bar.set_position(progress.done);
    });
    bar.finish_and_clear();
    Ok(Checkpoint::open(path?)?)
}

/// A progress bar on standard error; nothing where that is no terminal.
pub fn bar(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} [{bar:40}] {pos}/{len} {eta}").expect("the template is well formed");
    ProgressBar::new(0).with_style(style.progress_chars("=> ")).with_message(what)
}

fn download_style() -> ProgressStyle {
    let template = "{msg} [{bar:40}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
    ProgressStyle::with_template(template).expect("the template is well formed").progress_chars("=> ")
}

/// One line for an error and those behind it; no backtrace, no panic.
pub fn exit(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !line.contains(&more) {
            line = format!("{line}: {more}");
        }
        cause = error.source();
    }
    // A reader that has gone away (`| head`) is no error to tell of.
    if error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {line}");
    ExitCode::FAILURE
}

/// Set by Ctrl-C; pressed again, it ends the program at once.
#[cfg(feature = "train")]
pub fn stop_on_interrupt() -> Result<std::sync::Arc<std::sync::atomic::AtomicBool>> {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    ctrlc::set_handler(move || {
        if set.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\nfinishing the step; once more ends at once");
    })?;
    Ok(stop)
}

/// How a training goes: a bar on a terminal, else a line now and then.
#[cfg(feature = "train")]
pub struct TrainingProgress {
    bar: ProgressBar,
    steps: u64,
    told: std::time::Instant,
}

#[cfg(feature = "train")]
impl TrainingProgress {
    pub fn new(steps: u64) -> Self {
        let style = ProgressStyle::with_template("{pos}/{len} [{bar:30}] {msg} {eta}").expect("the template is well formed");
        let bar = ProgressBar::new(steps).with_style(style.progress_chars("=> "));
        Self { bar, steps, told: std::time::Instant::now() }
    }

    pub fn show(&mut self, event: puna::train::Event<'_>) {
        use puna::train::Event;
        match event {
            Event::Step(record) => {
                self.bar.set_position(record.step);
                let mut line = format!("loss {:.4}, {:.0} tokens/s", record.loss, record.tokens_per_second);
                if let Some(rewards) = record.rewards {
                    line += &format!(", {:.0}% preferred", 100.0 * rewards.accuracy);
                }
                if self.bar.is_hidden() && (self.told.elapsed().as_secs() >= 10 || record.step == self.steps) {
                    self.told = std::time::Instant::now();
                    eprintln!("step {} of {}: {line}", record.step, self.steps);
                }
                self.bar.set_message(line);
            }
            Event::Evaluated { step, loss } => self.say(format!("step {step}: held out {loss:.4}")),
            Event::Saved(path) => self.say(format!("saved {}", path.display())),
        }
    }

    fn say(&self, line: String) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Draws the losses of a run in `OUT/run`, as `OUT/loss.svg`, where this build can.
#[cfg(feature = "train")]
pub fn draw(out: &std::path::Path) -> Result<()> {
    #[cfg(feature = "plot")]
    {
        let picture = out.join("loss.svg");
        puna::train::plot::loss_curve(out.join("run/metrics.jsonl"), &picture)?;
        eprintln!("{}", picture.display());
    }
    let _ = out;
    Ok(())
}
