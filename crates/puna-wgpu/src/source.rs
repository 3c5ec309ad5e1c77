//! Kernel sources as they are compiled. What WGSL has no words for stands in lines that begin with `//@`, which are expanded here:
//!
//! | line | becomes |
//! | --- | --- |
//! | `//@ entry NAME` | what follows is of this entry alone; what stands before the first is of all |
//! | `//@ parameters lx: Layout, n: u32` | the uniform `p` with these fields, layouts first; and `lx_of(i)`: where element `i` lies |
//! | `//@ input x: X` | a binding, and `x_at(i)`: element `i` of the view, widened; of floats `x_four(i)`, of bytes `x_pair(i)`, `x_word(i)` |
//! | `//@ output y: Y` | the same, writable, with `y_store` (whole words), and `Y_COUNT`, the elements of a word |
//! | `//@ atomic y: Y` | writable one element at a time, whatever its neighbours do: `y_put(i, e)`, beside `y_at(i)` |
//! | `//@ elements y` | the entry's main function: `element(i)` for each of `p.n` elements of `y` |
//! | `//@ include NAME` | a header; `number X`: the one of the numbers that X is widened to |
//! | `//@ repeat r 4` .. `//@ end` | the lines between, four times (or as often as a constant says), `$r` being 0, 1, 2, 3 |
//! | `//@ if X f16 bf16` .. `//@ else` .. `//@ end` | what is of these dtypes alone, or (`//@ if NAME`) of a constant that is not 0 |
//!
//! For a dtype `X` there are `alias X`, the type that it is widened to, and of floats `X_round(v)`; for constants of a unit `const NAME: u32`.

use std::fmt::Write;

use puna_kernels::wgsl;
use puna_tensor::DType;

/// A source with its dtypes and constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Unit {
    pub(crate) source: &'static str,
    pub(crate) dtypes: [(&'static str, Number); 3],
    pub(crate) constants: [(&'static str, u32); 16],
}

/// No dtype, no constant.
pub(crate) const NO_DTYPE: (&str, Number) = ("", Number::U8);
pub(crate) const NO_CONSTANT: (&str, u32) = ("", 0);

impl Unit {
    /// A source with these dtypes.
    pub(crate) fn new<const N: usize>(source: &'static str, given: [(&'static str, Number); N]) -> Self {
        let mut dtypes = [NO_DTYPE; 3];
        dtypes[..N].copy_from_slice(&given);
        Self { source, dtypes, constants: [NO_CONSTANT; 16] }
    }

    /// With one more constant.
    pub(crate) fn with(mut self, name: &'static str, value: u32) -> Self {
        let free = self.constants.iter().position(|(name, _)| name.is_empty()).expect("no more constants than there is room for");
        self.constants[free] = (name, value);
        self
    }

    fn dtype(&self, name: &str) -> Option<Number> {
        self.dtypes.iter().find(|(known, _)| *known == name && !name.is_empty()).map(|(_, dtype)| *dtype)
    }

    fn constant(&self, name: &str) -> u32 {
        self.constants.iter().find(|(known, _)| *known == name).map_or(0, |(_, value)| *value)
    }
}

/// How a kernel uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// What a kernel is compiled from, and what it takes.
#[derive(Debug, Clone)]
pub(crate) struct Assembled {
    pub(crate) text: String,
    pub(crate) bindings: Vec<(Access, Number)>,
    /// The words of its parameters, without the offsets before them.
    pub(crate) words: usize,
}

/// How many buffers a kernel has at most: as many as every WebGPU device allows.
pub(crate) const MOST_BINDINGS: usize = 8;
/// The words that hold where each binding's first element lies.
pub(crate) const OFFSET_WORDS: usize = MOST_BINDINGS;

/// The source of an entry.
///
/// # Panics
/// Where the kernel's lines say something that is not understood.
pub(crate) fn assemble(unit: &Unit, entry: &str) -> Assembled {
    let mut out = Assembled { text: String::new(), bindings: Vec::new(), words: 0 };
    for (name, dtype) in unit.dtypes.iter().filter(|(name, _)| !name.is_empty()) {
        let _ = writeln!(out.text, "alias {name} = {};", wide(*dtype));
        let rounded = match dtype {
            Number::F32 => "v",
            Number::F16 => "of_f16(f16_bits(v))",
            Number::BF16 => "of_bf16(bf16_bits(v))",
            _ => continue,
        };
        let _ = writeln!(out.text, "fn {name}_round(v: f32) -> f32 {{ return {rounded}; }}");
    }
    for (name, value) in unit.constants.iter().filter(|(name, _)| !name.is_empty()) {
        let _ = writeln!(out.text, "const {name}: u32 = {value}u;");
    }
    out.text.push_str(wgsl::header("prelude.wgsl"));
    out.expand(unit, entry, wgsl::kernel(unit.source));
    out
}

/// What a line directs: the first word, and the rest.
fn directive(line: &str) -> Option<(&str, &str)> {
    let directive = line.trim_start().strip_prefix("//@ ")?;
    Some(directive.split_once(' ').unwrap_or((directive, "")))
}

/// The lines up to the end of what has just begun.
fn body<'a>(lines: &mut impl Iterator<Item = &'a str>) -> String {
    let (mut text, mut depth) = (String::new(), 1);
    for line in lines {
        match directive(line) {
            Some(("if" | "repeat", _)) => depth += 1,
            Some(("end", _)) => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return text;
        }
        text.push_str(line);
        text.push('\n');
    }
    panic!("a repeat has an end");
}

impl Assembled {
    fn expand(&mut self, unit: &Unit, entry: &str, text: &str) {
        // What is open: whether what is inside it is taken.
        let mut open: Vec<bool> = Vec::new();
        let mut of_entry = true;
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some((word, rest)) = directive(line) else {
                if of_entry && open.iter().all(|taken| *taken) {
                    self.text.push_str(line);
                    self.text.push('\n');
                }
                continue;
            };
            match word {
                "entry" => of_entry = rest == entry,
                "if" => {
                    let mut words = rest.split(' ');
                    let name = words.next().unwrap_or_default();
                    let mut names = words.peekable();
                    let taken = match unit.dtype(name) {
                        Some(dtype) => names.any(|word| word == dtype.name()),
                        None => names.peek().is_none() && unit.constant(name) != 0,
                    };
                    open.push(taken);
                }
                "repeat" => {
                    let body = body(&mut lines);
                    let (name, count) = rest.split_once(' ').expect("a name and a count");
                    let count = count.parse().unwrap_or_else(|_| unit.constant(count));
                    let taken = of_entry && open.iter().all(|taken| *taken);
                    for i in (0..count).filter(|_| taken) {
                        self.expand(unit, entry, &body.replace(&format!("${name}"), &i.to_string()));
                    }
                }
                "else" => *open.last_mut().expect("an if before its else") ^= true,
                "end" => {
                    open.pop().expect("an if before its end");
                }
                _ if !(of_entry && open.iter().all(|taken| *taken)) => {}
                "include" => match rest.split_once(' ') {
                    Some(("number", name)) => {
                        let dtype = unit.dtype(name).expect("a dtype of the unit");
                        self.expand(unit, entry, wgsl::header(number(dtype)));
                    }
                    _ => self.expand(unit, entry, wgsl::header(&format!("{rest}.wgsl"))),
                },
                "parameters" => self.parameters(rest),
                "input" | "output" | "atomic" => {
                    let (name, of) = rest.split_once(": ").expect("a name and its dtype");
                    let dtype = unit.dtype(of).or_else(|| Number::named(of)).expect("a dtype of the unit, or any");
                    self.binding(word, name, dtype);
                }
                "elements" => self.elements(rest, entry),
                other => panic!("{}: {other} is no directive", unit.source),
            }
        }
        assert!(open.is_empty(), "{}: an if has no end", unit.source);
    }

    fn parameters(&mut self, fields: &str) {
        self.text.push_str("struct Parameters {\n    offsets: array<vec4<u32>, 2>,\n");
        for field in fields.split(", ").filter(|field| !field.is_empty()) {
            let (_, of) = field.split_once(": ").expect("a name and its type");
            self.words += match of {
                "Layout" => 16,
                "u32" | "f32" => 1,
                other => panic!("{other} is the type of no parameter"),
            };
            let _ = writeln!(self.text, "    {field},");
        }
        self.text.push_str("}\n@group(0) @binding(0) var<uniform> p: Parameters;\n");
        for name in fields.split(", ").filter_map(|field| field.strip_suffix(": Layout")) {
            let _ = writeln!(
                self.text,
                "fn {name}_of(i: u32) -> u32 {{\n    \
                 if (p.{name}.rank <= 1u) {{ return i * p.{name}.axes[0].y; }}\n    \
                 var at = 0u;\n    var left = i;\n    let last = p.{name}.rank - 1u;\n    \
                 for (var axis = 0u; axis < last; axis++) {{\n        \
                 let pair = p.{name}.axes[axis >> 1u];\n        \
                 let one = select(pair.xy, pair.zw, (axis & 1u) == 1u);\n        \
                 let next = left / one.x;\n        at += (left - next * one.x) * one.y;\n        left = next;\n    }}\n    \
                 let pair = p.{name}.axes[last >> 1u];\n    \
                 return at + left * select(pair.y, pair.w, (last & 1u) == 1u);\n}}"
            );
        }
    }

    fn binding(&mut self, kind: &str, name: &str, dtype: Number) {
        let place = self.bindings.len();
        assert!(place < MOST_BINDINGS, "no more buffers than every device allows");
        let access = if kind == "input" { Access::Read } else { Access::Write };
        self.bindings.push((access, dtype));
        let (mode, word) = match kind {
            "input" => ("read", "u32"),
            "output" => ("read_write", "u32"),
            _ => ("read_write", "atomic<u32>"),
        };
        let begin = format!("p.offsets[{}u].{}", place / 4, ["x", "y", "z", "w"][place % 4]);
        let load = |at: &str| if word == "u32" { format!("{name}[{at}]") } else { format!("atomicLoad(&{name}[{at}])") };
        let text = &mut self.text;
        let _ = writeln!(text, "@group(0) @binding({}) var<storage, {mode}> {name}: array<{word}>;", place + 1);
        let _ = writeln!(text, "fn {name}_begin() -> u32 {{ return {begin}; }}");
        let of = wide(dtype);
        let narrow = |bits: u32, shift: u32, mask: &str| {
            format!("({} >> ((at & {}u) * {bits}u)) & {mask}", load(&format!("at >> {shift}u")), (1u32 << shift) - 1)
        };
        let value = match dtype {
            Number::F32 => format!("bitcast<f32>({})", load("at")),
            Number::U32 => load("at"),
            Number::U16 => narrow(16, 1, "0xffffu"),
            Number::F16 => format!("of_f16({})", narrow(16, 1, "0xffffu")),
            Number::BF16 => format!("of_bf16({})", narrow(16, 1, "0xffffu")),
            Number::U8 => narrow(8, 2, "0xffu"),
            Number::I64 | Number::F64 => format!("vec2<u32>({}, {})", load("2u * at"), load("2u * at + 1u")),
        };
        let _ = writeln!(text, "fn {name}_at(i: u32) -> {of} {{ let at = i + {begin}; return {value}; }}");
        match kind {
            "input" => self.several(name, dtype, &begin),
            "output" => {
                let _ = writeln!(text, "const {name}_COUNT: u32 = {}u;", dtype.count());
                let store = match dtype {
                    Number::F32 => format!("(i: u32, e: vec2<f32>) {{ {name}[i + {begin}] = bitcast<u32>(e.x); }}"),
                    Number::F16 => format!(
                        "(i: u32, e: vec2<f32>) {{ {name}[(i + {begin}) >> 1u] = f16_bits(e.x) | (f16_bits(e.y) << 16u); }}"
                    ),
                    Number::BF16 => {
                        format!(
                            "(i: u32, e: vec2<f32>) {{ {name}[(i + {begin}) >> 1u] = bf16_bits(e.x) | (bf16_bits(e.y) << 16u); }}"
                        )
                    }
                    Number::U16 => {
                        format!("(i: u32, e: vec2<u32>) {{ {name}[(i + {begin}) >> 1u] = (e.x & 0xffffu) | (e.y << 16u); }}")
                    }
                    Number::U32 => format!("(i: u32, e: vec2<u32>) {{ {name}[i + {begin}] = e.x; }}"),
                    Number::U8 => format!(
                        "(i: u32, e: vec4<u32>) {{ let w = e & vec4<u32>(255u); \
                         {name}[(i + {begin}) >> 2u] = w.x | (w.y << 8u) | (w.z << 16u) | (w.w << 24u); }}"
                    ),
                    _ => format!(
                        "(i: u32, e: vec2<u32>) {{ let at = 2u * (i + {begin}); {name}[at] = e.x; {name}[at + 1u] = e.y; }}"
                    ),
                };
                let _ = writeln!(text, "fn {name}_store{store}");
            }
            _ => {
                // And with what clears its own bits, Or with what sets them: no other's bits change, in whatever order.
                let put = match dtype {
                    Number::F32 => format!("atomicStore(&{name}[at], bitcast<u32>(e));"),
                    Number::U32 => format!("atomicStore(&{name}[at], e);"),
                    Number::I64 | Number::F64 => {
                        format!("atomicStore(&{name}[2u * at], e.x); atomicStore(&{name}[2u * at + 1u], e.y);")
                    }
                    Number::F16 | Number::BF16 | Number::U16 => format!(
                        "let s = (at & 1u) * 16u; atomicAnd(&{name}[at >> 1u], ~(0xffffu << s)); \
                         atomicOr(&{name}[at >> 1u], {}(e) << s);",
                        match dtype {
                            Number::F16 => "f16_bits",
                            Number::BF16 => "bf16_bits",
                            _ => "",
                        }
                    ),
                    Number::U8 => format!(
                        "let s = (at & 3u) * 8u; atomicAnd(&{name}[at >> 2u], ~(0xffu << s)); \
                         atomicOr(&{name}[at >> 2u], (e & 0xffu) << s);"
                    ),
                };
                let _ = writeln!(text, "fn {name}_put(i: u32, e: {of}) {{ let at = i + {begin}; {put} }}");
            }
        }
    }

    /// Several elements of an input at once: four floats, or four bytes as a word, from wherever they begin.
    fn several(&mut self, name: &str, dtype: Number, begin: &str) {
        let halves = |first: &str, second: &str| {
            format!(
                "if ((at & 1u) == 1u) {{ return vec4<f32>({name}_at(i), {name}_at(i + 1u), {name}_at(i + 2u), {name}_at(i + 3u)); }} \
                 let e0 = {name}[at >> 1u]; let e1 = {name}[(at >> 1u) + 1u]; return vec4<f32>({first}, {second});"
            )
        };
        let body = match dtype {
            Number::F32 => {
                format!("return bitcast<vec4<f32>>(vec4<u32>({name}[at], {name}[at + 1u], {name}[at + 2u], {name}[at + 3u]));")
            }
            Number::F16 => halves("unpack2x16float(e0)", "unpack2x16float(e1)"),
            Number::BF16 => halves(
                "bitcast<f32>(e0 << 16u), bitcast<f32>(e0 & 0xffff0000u)",
                "bitcast<f32>(e1 << 16u), bitcast<f32>(e1 & 0xffff0000u)",
            ),
            Number::U8 => {
                let _ = writeln!(
                    self.text,
                    "fn {name}_pair(i: u32) -> u32 {{ let at = i + {begin}; return ({name}[at >> 2u] >> ((at & 3u) * 8u)) & 0xffffu; }}\n\
                     fn {name}_word(i: u32) -> u32 {{ let at = i + {begin}; let s = (at & 3u) * 8u; let e = {name}[at >> 2u]; \
                     if (s == 0u) {{ return e; }} return (e >> s) | ({name}[(at >> 2u) + 1u] << (32u - s)); }}"
                );
                return;
            }
            _ => return,
        };
        let _ = writeln!(self.text, "fn {name}_four(i: u32) -> vec4<f32> {{ let at = i + {begin}; {body} }}");
    }

    /// The main function of an entry whose results are elements, each computed by itself: an invocation a word of them.
    fn elements(&mut self, name: &str, entry: &str) {
        let (_, dtype) = *self.bindings.first().expect("results are bound first");
        let value = match (dtype, dtype.count()) {
            (Number::I64 | Number::F64, _) => "element(i)".to_owned(),
            (Number::U32, _) => "vec2<u32>(element(i), 0u)".to_owned(),
            (Number::F32, _) => "vec2<f32>(element(i), 0.0)".to_owned(),
            (Number::U16, _) => "vec2<u32>(element(i), element(min(i + 1u, p.n - 1u)))".to_owned(),
            (_, 2) => "vec2<f32>(element(i), element(min(i + 1u, p.n - 1u)))".to_owned(),
            _ => {
                let at = |j: u32| format!("element(min(i + {j}u, p.n - 1u))");
                format!("vec4<u32>({}, {}, {}, {})", at(0), at(1), at(2), at(3))
            }
        };
        let _ = writeln!(
            self.text,
            "@compute @workgroup_size(256)\n\
             fn {entry}(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, \
             @builtin(local_invocation_index) lane: u32) {{\n    \
             let i = ((group.y * groups.x + group.x) * 256u + lane) * {name}_COUNT;\n    \
             if (i >= p.n) {{ return; }}\n    {name}_store(i, {value});\n}}"
        );
    }
}

/// How the elements of a binding lie in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    F32,
    F16,
    BF16,
    U32,
    /// Two bytes, whatever they mean.
    U16,
    U8,
    /// Two words, the lower first.
    I64,
    /// The same, of a double's bits.
    F64,
}

impl Number {
    const ALL: [Number; 8] =
        [Number::F32, Number::F16, Number::BF16, Number::U32, Number::U16, Number::U8, Number::I64, Number::F64];

    /// Elements of a dtype; of blocks their bytes.
    pub(crate) fn of(dtype: DType) -> Self {
        match dtype {
            DType::F32 => Self::F32,
            DType::F16 => Self::F16,
            DType::BF16 => Self::BF16,
            DType::U32 => Self::U32,
            DType::U8 | DType::Block(_) => Self::U8,
            DType::I64 => Self::I64,
            DType::F64 => Self::F64,
        }
    }

    /// Units of as many bytes.
    pub(crate) fn unit(dtype: DType) -> Self {
        match dtype.unit_bytes() {
            _ if dtype.block().is_some() => Self::U8,
            8 => Self::I64,
            4 => Self::U32,
            2 => Self::U16,
            _ => Self::U8,
        }
    }

    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|number| number.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::U32 => "u32",
            Self::U16 => "u16",
            Self::U8 => "u8",
            Self::I64 => "i64",
            Self::F64 => "f64",
        }
    }

    /// How many elements a word holds; 1 where an element takes more.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::F16 | Self::BF16 | Self::U16 => 2,
            Self::U8 => 4,
            _ => 1,
        }
    }
}

/// The type that an element is widened to.
fn wide(number: Number) -> &'static str {
    match number {
        Number::F32 | Number::F16 | Number::BF16 => "f32",
        Number::U32 | Number::U16 | Number::U8 => "u32",
        Number::I64 | Number::F64 => "vec2<u32>",
    }
}

/// The header with the arithmetic of what it is widened to.
fn number(number: Number) -> &'static str {
    match wide(number) {
        "f32" => "float.wgsl",
        "u32" => "word.wgsl",
        _ => "long.wgsl",
    }
}

#[cfg(test)]
mod tests {
    use puna_tensor::BlockType;

    use super::*;

    /// The entries of a source.
    fn entries(text: &str) -> impl Iterator<Item = &str> {
        text.lines().filter_map(|line| line.strip_prefix("//@ entry "))
    }

    /// The units that a source is compiled as: all dtypes of each kind that it says it takes.
    fn units(source: &'static str, text: &str) -> Vec<Unit> {
        use Number::{BF16, F16, F32, F64, I64, U8, U16, U32};
        let floats = [F32, F16, BF16];
        let says = |role: &str| text.contains(&format!(": {role}\n")) || text.contains(&format!("number {role}\n"));
        if text.contains("include blocks") && !text.contains("BLOCKS") {
            let unit = |block| crate::ops::with_blocks(Unit::new(source, [("Y", F32)]), block);
            return BlockType::ALL.into_iter().map(unit).collect();
        }
        match source {
            "copy.wgsl" => [U8, U16, U32, I64].map(|t| Unit::new(source, [("T", t)])).to_vec(),
            "cast.wgsl" => {
                let all = [F32, F16, BF16, U32, U8, I64];
                let doubles = floats.into_iter().flat_map(|x| [(F64, x), (x, F64)]);
                let pairs = all.into_iter().flat_map(|x| all.map(|y| (x, y))).chain(doubles);
                pairs.map(|(x, y)| Unit::new(source, [("X", x), ("Y", y)]).with("ODD", 0)).collect()
            }
            "elementwise.wgsl" | "reduce.wgsl" | "sort.wgsl" | "index.wgsl" => [F32, F16, BF16, U32, U8, I64]
                .map(|x| {
                    let wide = [F32, U32, I64][usize::from(wide(x) != "f32") + usize::from(x == I64)];
                    Unit::new(source, [("X", x), ("Y", x), ("W", wide)])
                })
                .to_vec(),
            "matmul.wgsl" => {
                let blocks =
                    |b| crate::ops::with_blocks(Unit::new(source, [("X", F32), ("W", U8), ("Y", F32)]), b).with("BLOCKS", 1);
                let plain = floats.map(|x| Unit::new(source, [("X", x), ("W", x), ("Y", x)]));
                let all = plain.into_iter().chain(BlockType::ALL.into_iter().map(blocks));
                let ways = [["A_FOURS", "B_FOURS"], ["B_ROWS", "A_FOURS"], ["B_ROWS", "B_FOURS"]];
                let lanes = |unit: Unit| {
                    let along = u32::from(unit.constant("B_ROWS") == 0);
                    let unit =
                        unit.with("TAIL", along).with("LANES", 8).with("ROWS", 2).with("COLUMNS", 4).with("ALONG_K", along);
                    unit.with("ONE", unit.constant("A_FOURS"))
                };
                all.flat_map(|unit| ways.map(|[one, other]| lanes(unit.with(one, 1).with(other, 1)))).collect()
            }
            "attention.wgsl" => {
                let unit =
                    |x| Unit::new(source, [("X", x), ("Y", x), ("W", x)]).with("DIM", 64).with("V_DIM", 64).with("ROOM", 64);
                let unit = |x| unit(x).with("LANES", 8).with("KEYS", 8).with("ROWS", 2).with("DIMS", 8);
                floats.into_iter().flat_map(|x| [unit(x), unit(x).with("PAGED", 1)]).collect()
            }
            "norm.wgsl" => {
                let unit =
                    |x, w| Unit::new(source, [("X", x), ("Y", x), ("W", w)]).with("LANES", 8).with("ROWS", 2).with("HELD", 16);
                floats.into_iter().flat_map(|x| floats.map(|w| unit(x, w))).collect()
            }
            _ if says("X") || says("W") => {
                floats.into_iter().flat_map(|x| floats.map(|w| Unit::new(source, [("X", x), ("Y", x), ("W", w)]))).collect()
            }
            _ => vec![Unit::new(source, [])],
        }
    }

    #[test]
    fn every_kernel_is_valid() {
        let mut failures = Vec::new();
        for &(source, text) in wgsl::KERNELS {
            for unit in units(source, text) {
                let integers = unit.dtype("X").is_some_and(|x| wide(x) != "f32");
                // A product and a sum is of floats alone, a derivative of keys that are packed.
                let taken = |entry: &&str| match *entry {
                    "affine" => !integers,
                    "attention" | "attention_lanes" => true,
                    _ => unit.constant("PAGED") == 0,
                };
                for entry in entries(text).filter(taken) {
                    let assembled = assemble(&unit, entry);
                    if let Err(message) = validate(&assembled.text) {
                        failures.push(format!("{entry} of {unit:?}: {message}"));
                    }
                }
            }
        }
        failures.truncate(12);
        assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    }

    fn validate(text: &str) -> Result<(), String> {
        let module = naga::front::wgsl::parse_str(text).map_err(|error| error.emit_to_string(text))?;
        let mut validator = naga::valid::Validator::new(
            naga::valid::ValidationFlags::all(),
            naga::valid::Capabilities::SHADER_FLOAT16_IN_FLOAT32 | naga::valid::Capabilities::SUBGROUP,
        );
        validator.validate(&module).map(drop).map_err(|error| error.emit_to_string(text))
    }
}
