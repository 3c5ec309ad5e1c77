//! Kernels compiled beforehand for many cards, in one file: `cargo xtask cubins` makes it, the feature `prebuilt` builds it in.
//!
//! The file: [`MAGIC`], the length of the table and its checksum; the table: the compiler's version, and of each kernel its unit, its
//! architecture, a checksum of the sources it was compiled from, the lengths of its code and of what that is packed to, and a checksum of the
//! latter; behind the table the packed code (deflate), in its order. Numbers are little-endian, texts have their length before them.

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::decompress_to_vec_with_limit;
use puna_bytes::Reader;
use puna_kernels::cuda::{HEADERS, Source};
use puna_tensor::{Error, Kind, Result};

/// What a file begins with.
const MAGIC: &[u8; 8] = b"punaset1";
/// How hard code is packed: of 10.
const LEVEL: u8 = 9;

/// A unit's machine code for an architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cubin {
    /// The name of the source.
    pub source: &'static str,
    /// What is defined before it: `T=bf16`.
    pub defines: Vec<String>,
    /// As the compiler calls it: `sm_80`.
    pub architecture: String,
    /// The code.
    pub code: Vec<u8>,
}

/// A file of kernels, read.
pub struct Cubins<'a> {
    compiler: (u32, u32),
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    unit: &'a str,
    architecture: Architecture<'a>,
    sources: u64,
    length: usize,
    packed: &'a [u8],
    checksum: u64,
}

/// An architecture by its name: `sm_80`, whose code runs on all later cards of its generation, or `sm_90a`, whose code runs on its own alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Architecture<'a> {
    name: &'a str,
    capability: u32,
    own: bool,
}

impl<'a> Architecture<'a> {
    fn new(name: &'a str) -> Option<Self> {
        let number = name.strip_prefix("sm_")?;
        let digits = number.trim_end_matches('a');
        Some(Self { name, capability: digits.parse().ok()?, own: digits != number })
    }

    /// Whether a card of this compute capability (times ten) runs its code.
    fn runs_on(&self, capability: u32) -> bool {
        let generation = capability / 10 == self.capability / 10 && self.capability <= capability;
        if self.own { self.capability == capability } else { generation }
    }
}

fn fail(message: impl Into<String>) -> Error {
    Error::new(Kind::Backend, "prebuilt kernels", message)
}

/// A checksum that every program computes alike: FNV-1a, each part with its length before it.
fn checksum<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64;
    let mut add = |bytes: &[u8]| bytes.iter().for_each(|byte| sum = (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    for part in parts {
        add(&(part.len() as u64).to_le_bytes());
        add(part);
    }
    sum
}

/// Of what a kernel is compiled from: its source, and the headers.
fn checksum_of(source: &Source) -> u64 {
    let files = [source].into_iter().chain(HEADERS);
    checksum(files.flat_map(|file| [file.name.as_bytes(), file.text.as_bytes()]))
}

fn unit_name(source: &str, defines: &[String]) -> String {
    [source].into_iter().chain(defines.iter().map(String::as_str)).collect::<Vec<_>>().join(" ")
}

/// The file that holds these, which a compiler of this version has made.
pub fn pack(compiler: (u32, u32), cubins: &[Cubin]) -> Vec<u8> {
    fn text(table: &mut Vec<u8>, text: &str) {
        table.extend((text.len() as u32).to_le_bytes());
        table.extend(text.as_bytes());
    }
    let mut table: Vec<u8> = [compiler.0, compiler.1, cubins.len() as u32].into_iter().flat_map(u32::to_le_bytes).collect();
    let mut code = Vec::new();
    for cubin in cubins {
        let packed = compress_to_vec(&cubin.code, LEVEL);
        text(&mut table, &unit_name(cubin.source, &cubin.defines));
        text(&mut table, &cubin.architecture);
        let sources = checksum_of(&puna_kernels::cuda::kernel(cubin.source));
        let numbers = [sources, cubin.code.len() as u64, packed.len() as u64, checksum([&packed[..]])];
        table.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
        code.extend(packed);
    }
    let head = [table.len() as u64, checksum([&table[..]])].map(u64::to_le_bytes);
    [&MAGIC[..], &head.concat(), &table, &code].concat()
}

impl<'a> Cubins<'a> {
    /// Reads the table of a file.
    ///
    /// Errors: it is no such file, it is cut short, its table is damaged.
    pub fn read(bytes: &'a [u8]) -> Result<Self> {
        Self::parse(bytes).map_err(|e| fail(format!("no file that `cargo xtask cubins` has made, or a damaged one: {e}")))
    }

    fn parse(bytes: &'a [u8]) -> puna_bytes::Result<Self> {
        let mut file = Reader::new(bytes);
        if file.array::<8>("magic")? != *MAGIC {
            return Err(file.invalid("magic", "another"));
        }
        let (length, sum) = (file.u64_le("table length")?, file.u64_le("table checksum")?);
        if checksum([file.peek("table", length)?]) != sum {
            return Err(file.invalid("table", "its checksum is another"));
        }
        let mut table = file.nested("table", length)?;
        let compiler = (table.u32_le("compiler")?, table.u32_le("compiler")?);
        let count = table.u32_le("count")?;
        let count = table.count("kernels", count.into(), 40)?;
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let mut text = |what: &str| {
                let length = table.u32_le(what)?;
                table.str(what, length.into())
            };
            let (unit, name) = (text("unit")?, text("architecture")?);
            let architecture = Architecture::new(name).ok_or_else(|| table.invalid("architecture", name))?;
            let mut number = |what: &str| table.u64_le(what);
            let (sources, length, packed, checksum) =
                (number("sources")?, number("length")?, number("packed")?, number("checksum")?);
            let packed = file.bytes(unit, packed)?;
            // No kernel is as large; a length that is decides no allocation.
            let length = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 28);
            entries.push(Entry { unit, architecture, sources, length, packed, checksum });
        }
        Ok(Self { compiler, entries })
    }

    /// The version of the compiler that has made the code.
    pub fn compiler(&self) -> (u32, u32) {
        self.compiler
    }

    /// How many kernels there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// A unit's code for a card of this compute capability (times ten): that of its own architecture, else of the latest before it in its
    /// generation.
    ///
    /// Errors: there is none; it is of other sources than this program's; it is damaged.
    pub fn find(&self, source: &Source, defines: &[String], capability: u32) -> Result<Vec<u8>> {
        let unit = unit_name(source.name, defines);
        let fitting = self.entries.iter().filter(|entry| entry.unit == unit && entry.architecture.runs_on(capability));
        let Some(entry) = fitting.max_by_key(|entry| (entry.architecture.capability, entry.architecture.own)) else {
            let (major, minor) = (capability / 10, capability % 10);
            return Err(fail(format!("there is none of {unit} for compute capability {major}.{minor}")));
        };
        entry.code(source)
    }

    /// A unit's code for this architecture, and no other.
    ///
    /// Errors: as of [`find`](Self::find).
    pub fn find_exactly(&self, source: &Source, defines: &[String], architecture: &str) -> Result<Vec<u8>> {
        let unit = unit_name(source.name, defines);
        let entry = self.entries.iter().find(|entry| entry.unit == unit && entry.architecture.name == architecture);
        entry.ok_or_else(|| fail(format!("there is none of {unit} for {architecture}")))?.code(source)
    }
}

impl Entry<'_> {
    /// The code, if it is of this source.
    fn code(&self, source: &Source) -> Result<Vec<u8>> {
        let place = || format!("{} for {}", self.unit, self.architecture.name);
        if self.sources != checksum_of(source) {
            return Err(fail(format!(
                "{} was compiled from other sources than this program's; `cargo xtask cubins` makes it anew",
                place()
            )));
        }
        if self.checksum != checksum([self.packed]) {
            return Err(fail(format!("{} is damaged", place())));
        }
        let code =
            decompress_to_vec_with_limit(self.packed, self.length).map_err(|e| fail(format!("{} is damaged: {e}", place())))?;
        if code.len() == self.length { Ok(code) } else { Err(fail(format!("{} is damaged", place()))) }
    }
}

#[cfg(test)]
mod tests {
    use puna_kernels::cuda::kernel;

    use super::*;

    fn cubin(source: &'static str, define: &str, architecture: &str) -> Cubin {
        let code = format!("{source} {define} {architecture} ").repeat(40).into_bytes();
        Cubin { source, defines: vec![define.into()], architecture: architecture.into(), code }
    }

    fn set() -> Vec<Cubin> {
        let norms = ["sm_75", "sm_80", "sm_90a", "sm_100", "sm_120"].map(|architecture| cubin("norm.cu", "T=bf16", architecture));
        norms.into_iter().chain([cubin("rope.cu", "T=bf16", "sm_80")]).collect()
    }

    #[test]
    fn what_was_packed_is_found() {
        let all = set();
        let file = pack((13, 5), &all);
        let read = Cubins::read(&file).unwrap();
        assert_eq!((read.compiler(), read.count()), ((13, 5), all.len()));
        for Cubin { source, defines, architecture, code } in &all {
            assert_eq!(read.find_exactly(&kernel(source), defines, architecture).unwrap(), *code);
        }
        assert!(file.len() < all.iter().map(|cubin| cubin.code.len()).sum(), "it is packed");
        assert!(Cubins::read(&pack((12, 0), &[])).unwrap().entries.is_empty());
    }

    #[test]
    fn a_card_finds_what_it_runs() {
        let file = pack((13, 5), &set());
        let read = Cubins::read(&file).unwrap();
        let defines = ["T=bf16".to_owned()];
        let found = |capability| {
            let code = read.find(&kernel("norm.cu"), &defines, capability).ok()?;
            String::from_utf8(code).unwrap().split(' ').nth(2).map(str::to_owned)
        };
        for (capability, architecture) in
            [(75, "sm_75"), (80, "sm_80"), (86, "sm_80"), (89, "sm_80"), (90, "sm_90a"), (103, "sm_100")]
        {
            assert_eq!(found(capability).unwrap(), architecture, "{capability}");
        }
        // Code of Hopper's own instructions runs on no other; that of one generation on no other's cards; none on older cards.
        assert_eq!((found(121).unwrap(), found(110), found(91), found(72)), ("sm_120".into(), None, None, None));
        let error = read.find(&kernel("norm.cu"), &["T=f16".into()], 80).unwrap_err().to_string();
        assert!(error.contains("none of norm.cu T=f16 for compute capability 8.0"), "{error}");
        // The card's own before what it runs too.
        let file = pack((13, 5), &[cubin("norm.cu", "T=bf16", "sm_80"), cubin("norm.cu", "T=bf16", "sm_86")]);
        let code = Cubins::read(&file).unwrap().find(&kernel("norm.cu"), &defines, 89).unwrap();
        assert!(code.starts_with(b"norm.cu T=bf16 sm_86"));
    }

    #[test]
    fn code_of_other_sources_is_refused() {
        let file = pack((13, 5), &set());
        let changed = Source { text: "another kernel", ..kernel("norm.cu") };
        let error = Cubins::read(&file).unwrap().find(&changed, &["T=bf16".into()], 80).unwrap_err().to_string();
        assert!(error.contains("norm.cu T=bf16 for sm_80 was compiled from other sources"), "{error}");
    }

    #[test]
    fn damage_is_noticed_wherever_it_is() {
        let all = set();
        let file = pack((13, 5), &all);
        let intact = |bytes: &[u8]| {
            let Ok(read) = Cubins::read(bytes) else { return false };
            all.iter().all(|cubin| read.find_exactly(&kernel(cubin.source), &cubin.defines, &cubin.architecture).is_ok())
        };
        assert!(intact(&file));
        for at in 0..file.len() {
            assert!(!intact(&file[..at]), "cut to {at}");
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert!(!intact(&flipped), "byte {at} is another");
        }
        let error = Cubins::read(b"ELF and so on").err().unwrap().to_string();
        assert!(error.contains("cargo xtask cubins"), "{error}");
    }
}
