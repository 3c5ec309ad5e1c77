//! `cargo xtask stories`: a corpus of children's stories, told by a program.
//!
//! A story is simulated and then told. The [`world`] holds characters with traits, moods and friends, things that are held, lost,
//! broken and hidden, places, a time of day and a weather. A plot of [`plots`] sets up a wish or a trouble and lets [`events`] work
//! on the world until it is settled; each event is told by one of many patterns ([`pattern`], the texts in `tellings/`) whose
//! conditions are true of the world. How someone is mentioned ([`reference`](mod@reference)), how speech is set ([`dialogue`]) and what a narrator
//! likes ([`voice`]) is decided while telling, so that pronouns are clear and what was lost is what is found.
//!
//! Story `n` of a seed depends on these two numbers only: the same bytes on every machine.

pub mod cast;
pub mod dialogue;
pub mod events;
pub mod page;
pub mod pattern;
pub mod plots;
pub mod reference;
pub mod rng;
pub mod telling;
pub mod voice;
pub mod words;
pub mod world;

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Result;

/// What stands on a line of its own after each story.
pub const SEPARATOR: &str = "<|endoftext|>";

/// Tells stories: a corpus for small models. Each story is followed by a line `<|endoftext|>`; paragraphs are parted by an empty line.
#[derive(Debug, Clone, clap::Args)]
pub struct Request {
    /// The seed; story n of a seed is always the same.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Stop after the story with which so many tokens are reached. A token is a word or a punctuation mark; a byte-level BPE of a
    /// few thousand tokens makes about as many.
    #[arg(long, default_value_t = 100_000)]
    pub tokens: u64,
    /// So many stories instead.
    #[arg(long, conflicts_with = "tokens")]
    pub count: Option<u64>,
    /// The file; by default standard output. It appears when it is whole.
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// A story while it happens.
#[derive(Debug, Clone)]
pub struct Story {
    rng: rng::Rng,
    world: world::World,
    voice: voice::Voice,
    page: page::Page,
    roles: telling::Roles,
    /// The patterns that were used; none is used twice while another fits.
    used: Vec<u32>,
    /// Words of lists that were used of late.
    recent: [&'static str; 12],
    recent_at: usize,
    /// Whether what is rendered is said by someone, by whom and to whom.
    quoted: bool,
    speaker: Option<world::Who>,
    listener: Option<world::Who>,
    /// How many speeches in a row went without "said".
    untagged: usize,
    /// The words after which nothing new should begin.
    length: usize,
    /// Whether the last that was told is a feeling.
    felt: bool,
    /// Whether the opening is over.
    begun: bool,
    /// The friend with whom it ends.
    ally: Option<world::Who>,
}

/// A story that was told.
#[derive(Debug, Clone)]
pub struct Told {
    /// The text.
    pub text: String,
    /// The plot's name.
    pub plot: &'static str,
    /// Who is in it.
    pub cast: Vec<world::Character>,
    /// The things in it; the first is the one that it is about, if it is about one.
    pub things: Vec<world::Thing>,
}

/// Story `number` of a seed.
pub fn tell(seed: u64, number: u64) -> Told {
    let mut story = Story::new(seed, number);
    let plot = plots::pick(&mut story.rng);
    (plot.act)(&mut story);
    Told { text: story.page.finish(), plot: plot.name, cast: story.world.cast, things: story.world.things }
}

/// How many tokens a text has: words and punctuation marks.
pub fn tokens(text: &str) -> u64 {
    let (mut count, mut word) = (0, false);
    for byte in text.bytes() {
        let letter = byte.is_ascii_alphanumeric() || byte == b'\'' || byte == b'-';
        count += u64::from(letter && !word) + u64::from(!letter && byte.is_ascii_punctuation());
        word = letter;
    }
    count
}

/// Tells as many stories as asked. A reader that has had enough, a closed pipe, is no error.
pub fn run(request: &Request) -> Result<()> {
    let Some(out) = &request.out else {
        return match write(request, &mut BufWriter::new(io::stdout().lock())) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => Ok(other?),
        };
    };
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = |error: io::Error| format!("{}: {error}", out.display());
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(named)?;
    let mut buffered = BufWriter::with_capacity(1 << 20, &mut file);
    write(request, &mut buffered).map_err(named)?;
    drop(buffered);
    file.as_file().sync_all().map_err(named)?;
    file.persist(out).map_err(|error| named(error.error))?;
    Ok(())
}

fn write(request: &Request, out: &mut dyn Write) -> io::Result<()> {
    let terminal = io::stderr().is_terminal() && !(request.out.is_none() && io::stdout().is_terminal());
    let (mut done, mut bytes, mut shown, start) = (0, 0, Instant::now(), Instant::now());
    let mut number = 0;
    while request.count.map_or(done < request.tokens, |count| number < count) {
        let text = tell(request.seed, number).text;
        writeln!(out, "{text}\n{SEPARATOR}")?;
        done += tokens(&text);
        bytes += text.len();
        number += 1;
        if terminal && shown.elapsed() > Duration::from_millis(200) {
            shown = Instant::now();
            let rate = bytes as f64 / 1e6 / start.elapsed().as_secs_f64();
            eprint!("\r{number} stories, {done} tokens, {rate:.1} MB/s ");
        }
    }
    if terminal {
        eprintln!("\r{number} stories, {done} tokens, {:.1} MB in {:.1} s", bytes as f64 / 1e6, start.elapsed().as_secs_f64());
    }
    out.flush()
}

impl Story {
    fn roles_set(&mut self, role: telling::Role) {
        self.roles.set(role);
    }
}
